"""Files of the images that an evaluation keeps."""

import hashlib
from pathlib import Path

TRUTH, MEASURED = "truth", "measurement"


def picture_file(out: Path, task: str, name: str, number: int) -> Path:
    """Where the picture of one image is kept."""
    data = f"{task}\n{name}".encode(errors="backslashreplace")
    safe = hashlib.sha256(data).hexdigest()[:16]
    return out / "pictures" / f"{number:05d}-{safe}.png"


def picture_files(out: Path) -> list[Path]:
    """All pictures that are kept in a folder of results."""
    name = f"{'[0-9]' * 5}*-{'[0-9a-f]' * 16}.png"
    return list((out / "pictures").glob(name))
