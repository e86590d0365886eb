"""Data leakage: images that are in both the training and the validation data.

The check is cheap, not complete: it finds identical files and identical data sets.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genprior.core.checksums import file_digest
from genprior.io.datasets import Collection
from genprior.training.crops import Crops

HEAD = 4096


def common_image(data: Any, validation: Any) -> str | None:
    """Returns the name of an image that is in both sources of crops, or None.

    Files are compared by content, whatever their names. Arrays in memory and data sets of
    torchvision are compared as a whole.
    """
    if not (isinstance(data, Crops) and isinstance(validation, Crops)):
        return None
    file = common_file(_files(validation), _files(data))
    if file is not None:
        return str(file)
    pairs = ((one, other) for one in _sets(validation) for other in _sets(data))
    same = next((one for one, other in pairs if _is_same(one, other)), None)
    return same and f"image 0 of {len(same)}"


def common_file(files: Sequence[Path], others: Sequence[Path]) -> Path | None:
    """Returns the first of `files` that is, or has the same bytes as, one of the others."""
    paths = {path.resolve() for path in others}
    same = next((path for path in files if path.resolve() in paths), None)
    if same is not None:
        return same
    for key in (_size, _head, file_digest):  # each reads more bytes, of fewer files
        keys_of_others = {path: key(path) for path in others}
        keys = {path: key(path) for path in files}
        both = {*keys_of_others.values()} & {*keys.values()}
        others = [path for path in others if keys_of_others[path] in both]
        files = [path for path in files if keys[path] in both]
    return next(iter(files), None)


def _size(path: Path) -> int:
    return path.stat().st_size


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _files(crops: Crops) -> list[Path]:
    files = (collection.file(index) for collection, index in crops.images.entries)
    return list(dict.fromkeys(file for file in files if file is not None))


def _sets(crops: Crops) -> list[Collection]:
    """Returns the collections whose images are not files of their own."""
    collections = dict.fromkeys(collection for collection, _ in crops.images.entries)
    return [collection for collection in collections if collection.file(0) is None]


def _is_same(one: Collection, other: Collection) -> bool:
    """Whether two data sets have the same length and equal first and last images."""
    if one.items is other.items:
        return True
    ends = (0, len(one) - 1)
    return len(one) == len(other) and all(one[k] == other[k] for k in ends)
