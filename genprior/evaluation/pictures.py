"""Paths of the images that an evaluation saves."""

import hashlib
from pathlib import Path

PICTURES = "pictures"
TRUTH, MEASURED = "truth", "measurement"


def picture_file(out: Path, task: str, name: str, number: int) -> Path:
    """Returns the path of a saved image.

    Arguments:
        out: Folder of the results.
        task: Text of the task.
        name: Name of the method, `TRUTH` or `MEASURED`.
        number: Index of the image in the collection.
    """
    data = f"{task}\n{name}".encode(errors="backslashreplace")
    safe = hashlib.sha256(data).hexdigest()[:16]
    return out / PICTURES / f"{number:05d}-{safe}.png"


def picture_files(out: Path) -> list[Path]:
    """Returns the paths of all images saved in a folder of results."""
    name = f"{'[0-9]' * 5}*-{'[0-9a-f]' * 16}.png"
    return list((out / PICTURES).glob(name))
