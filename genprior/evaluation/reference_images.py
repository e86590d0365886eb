"""Reference images (ground truth) of an evaluation, from a folder or a data set."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from genprior.core.checksums import file_digest
from genprior.core.errors import ImageError
from genprior.io.datasets import TORCHVISION, is_folder, is_picture, open_items, read_item
from genprior.io.images import ImageFile, image_files, read_image


@dataclass(frozen=True)
class ReferenceImage:
    """A reference image, which is read on demand.

    Attributes:
        name: Its name in the results.
        read: Returns the image; takes the largest permitted number of pixels.
        digest: Returns the sha256 of the file, or of the pixels of an item of a data set.
    """

    name: str
    read: Callable[[int], ImageFile]
    digest: Callable[[], str]


def open_reference_images(
    data: str | Path, max_pixels: int, held_out: bool = True
) -> list[ReferenceImage]:
    """Returns all reference images of a source.

    Arguments:
        data: A path or "torchvision:NAME", see `genprior.io.datasets.open_source`; but subfolders
            of a folder are left out.
        max_pixels: Larger images are refused.
        held_out: Use the test images of a torchvision data set, not the training images.

    Raises:
        ValueError: The source contains no image, or cannot be read.
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
            f"{name}[{k}]", partial(_picture, items, name, k),
            partial(_digest, items, name, k, max_pixels),
        )
        for k in range(len(items))
    ]


def collection_name(data: str | Path) -> str:
    """Returns the name of a collection, without its folder."""
    text = str(data)
    return text.split(":")[1] if text.startswith(TORCHVISION) else Path(text).name


def _digest(items: Any, name: str, index: int, max_pixels: int) -> str:
    pixels = read_item(items, index, f"{name}[{index}]", max_pixels)
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()


def _picture(items: Any, name: str, index: int, max_pixels: int) -> ImageFile:
    return ImageFile(read_item(items, index, f"{name}[{index}]", max_pixels))
