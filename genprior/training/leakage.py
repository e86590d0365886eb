"""Whether what is to judge a training is trained on, as far as that is cheap to tell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genprior.core.checksums import file_digest
from genprior.io.datasets import Collection
from genprior.training.crops import Crops

HEAD = 4096


def common_image(data: Any, validation: Any) -> str | None:
    """An image that is in two sources of crops, as it can be named; None if none is found.

    Files are compared with files, under whatever names. Sets in memory and those of torchvision
    are compared as a whole.
    """
    if not (isinstance(data, Crops) and isinstance(validation, Crops)):
        return None
    file = common_file(_files(validation), _files(data))
    if file is not None:
        return str(file)
    pairs = ((ours, others) for ours in _sets(validation) for others in _sets(data))
    same = next((ours for ours, others in pairs if _is_one(ours, others)), None)
    return same and f"image 0 of {len(same)}"


def common_file(ours: Sequence[Path], others: Sequence[Path]) -> Path | None:
    """The first of our files that is, or has the bytes of, one of the others."""
    paths = {path.resolve() for path in others}
    same = next((path for path in ours if path.resolve() in paths), None)
    if same is not None:
        return same
    for key in (_size, _head, file_digest):  # each reads more, of the files that are left
        theirs = {path: key(path) for path in others}
        mine = {path: key(path) for path in ours}
        both = {*theirs.values()} & {*mine.values()}
        others = [path for path in others if theirs[path] in both]
        ours = [path for path in ours if mine[path] in both]
    return next(iter(ours), None)


def _size(path: Path) -> int:
    return path.stat().st_size


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _files(crops: Crops) -> list[Path]:
    files = (collection.file(index) for collection, index in crops.images.places)
    return list(dict.fromkeys(file for file in files if file is not None))


def _sets(crops: Crops) -> list[Collection]:
    """The collections that are in no files of their own."""
    collections = dict.fromkeys(collection for collection, _ in crops.images.places)
    return [collection for collection in collections if collection.file(0) is None]


def _is_one(ours: Collection, others: Collection) -> bool:
    """Whether two sets are one: as long, and the first and the last images are equal."""
    if ours.items is others.items:
        return True
    ends = (0, len(ours) - 1)
    return len(ours) == len(others) and all(ours[k] == others[k] for k in ends)
