"""SHA-256 checksums of files and bytes."""

import hashlib
from pathlib import Path


def sha256(data: bytes) -> str:
    """Checksum of a file's content."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
