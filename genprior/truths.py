"""The images of an evaluation: those of a folder, or the items of a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from genprior.arrays import to_tensor
from genprior.images import Picture, image_files, read_image
from genprior.sources import is_folder, is_picture, open_items


@dataclass(frozen=True)
class Truth:
    """One image, read when it is asked for.

    Attributes:
        name: What it is called in the results.
        read: Gives it; takes how many pixels it may have.
    """

    name: str
    read: Callable[[int], Picture]


def open_truths(data: str | Path, max_pixels: int) -> list[Truth]:
    """All images of a source.

    Arguments:
        data: A folder of images, whose own folders are left out; or anything else that
            `genprior.sources.open_source` takes.
        max_pixels: Larger images are refused.

    Raises:
        ValueError: There is no image, or it cannot be read.
    """
    if is_folder(data) or is_picture(data):
        files = image_files(Path(data)) if is_folder(data) else [Path(data)]
        return [Truth(path.name, partial(read_image, path)) for path in files]
    items = open_items(data, max_pixels)
    name = str(data).rpartition("/")[2]
    return [Truth(f"{name}[{k}]", partial(_picture, items, k)) for k in range(len(items))]


def _picture(items: Any, index: int, max_pixels: int) -> Picture:
    item = items[index]
    pixels, _ = to_tensor(item[0] if isinstance(item, tuple | list) else item)
    return Picture(pixels)
