"""Writing files so that a reader, or a killed run, never meets half of one."""

import os
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY, DIGITS = ".genprior-", 16
MADE_HERE = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{{DIGITS}}}")
HOUR = 3600


class AtomicFiles:
    """Files that are written all and whole, or not at all, in a `with` block.

    Each is written under a temporary name in its folder, and fsynced; at the end of the block all
    are renamed, in the order of writing. Where something fails before, older files stay.
    """

    def __init__(self) -> None:
        self._temporary: dict[Path, Path] = {}

    def __enter__(self) -> "AtomicFiles":
        return self

    def write(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        """Writes a file; arguments as of `write_atomic`."""
        # Not the name of the file with something added, which may be too long.
        temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(DIGITS // 2)}"
        self._temporary[path] = temporary
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())

    def read(self, path: Path) -> bytes:
        """What was written for a file, before it has its name."""
        return self._temporary[path].read_bytes()

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            for path, temporary in self._temporary.items() if kind is None else ():
                os.replace(temporary, path)
        finally:
            for temporary in self._temporary.values():
                temporary.unlink(missing_ok=True)
        for folder in {path.parent for path in self._temporary}:
            _sync(folder)


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file whole or not at all: temporary file in the same folder, fsync, rename.

    Arguments:
        path: Where the file goes; an older file there is replaced.
        write: Called with the open temporary file.
    """
    with AtomicFiles() as files:
        files.write(path, write)


def _sync(folder: Path) -> None:
    """Has new names in a folder outlive a power cut, where the file system can do that."""
    if os.name != "posix":
        return
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def unfinished(folder: Path) -> list[Path]:
    """What killed runs left in a folder, and what others are writing at the moment."""
    return [path for path in folder.glob(f"{TEMPORARY}*") if MADE_HERE.fullmatch(path.name)]


def sweep(folder: Path) -> None:
    """Removes what killed runs left unfinished in a folder, once it is an hour old."""
    for path in unfinished(folder):
        with suppress(OSError):  # it is a folder, or another process has just renamed it
            if time.time() - path.stat().st_mtime > HOUR:  # a younger one may be at work
                path.unlink()
