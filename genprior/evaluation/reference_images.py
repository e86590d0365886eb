"""The images of an evaluation: those of a folder, or the items of a data set."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from genprior.core.checksums import file_digest
from genprior.core.errors import ImageError
from genprior.io.arrays import to_tensor
from genprior.io.datasets import TORCHVISION, is_folder, is_picture, open_items
from genprior.io.images import ImageFile, image_files, read_image
from genprior.io.raster import check_size


@dataclass(frozen=True)
class ReferenceImage:
    """One image, read when it is asked for.

    Attributes:
        name: What it is called in the results.
        read: Gives it; takes how many pixels it may have.
        digest: Gives the sha256 of the file or the pixels that it is read from.
    """

    name: str
    read: Callable[[int], ImageFile]
    digest: Callable[[], str]


def open_reference_images(
    data: str | Path, max_pixels: int, held_out: bool = True
) -> list[ReferenceImage]:
    """All images of a source.

    Arguments:
        data: A folder of images, whose own folders are left out; or anything else that
            `genprior.io.datasets.open_source` takes.
        max_pixels: Larger images are refused.
        held_out: Of a data set of torchvision, take the images that are not for training.

    Raises:
        ValueError: There is no image, or the collection cannot be read.
    """
    if is_folder(data) or is_picture(data):
        files = image_files(Path(data)) if is_folder(data) else [Path(data)]
        return [
            ReferenceImage(path.name, partial(read_image, path), partial(file_digest, path))
            for path in files
        ]
    items = open_items(data, max_pixels, held_out)
    if not len(items):
        raise ImageError(f"there is no image in {data}")
    name = collection_name(data)
    return [
        ReferenceImage(
            f"{name}[{k}]", partial(_picture, items, name, k), partial(_digest, items, name, k)
        )
        for k in range(len(items))
    ]


def collection_name(data: str | Path) -> str:
    """What a collection is called, without the folder that it is in."""
    text = str(data)
    return text.split(":")[1] if text.startswith(TORCHVISION) else Path(text).name


def _digest(items: Any, name: str, index: int) -> str:
    pixels = _pixels(items, name, index)
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()


def _picture(items: Any, name: str, index: int, max_pixels: int) -> ImageFile:
    pixels = _pixels(items, name, index)
    try:
        check_size(*pixels.shape[-2:], max_pixels)
    except ImageError as error:
        raise ImageError(f"{name}[{index}]: {error}") from error
    return ImageFile(pixels)


def _pixels(items: Any, name: str, index: int) -> Tensor:
    try:
        item = items[index]
        return to_tensor(item[0] if isinstance(item, tuple | list) else item)[0]
    except (OSError, TypeError, ValueError) as error:
        raise ImageError(f"{name}[{index}]: {error}") from error
