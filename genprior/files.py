"""Writing files so that a reader, or a killed run, never meets half of one."""

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".genprior-"
HOUR = 3600


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file whole or not at all: temporary file in the same folder, fsync, rename.

    Arguments:
        path: Where the file goes; an older file there is replaced.
        write: Called with the open temporary file.
    """
    # Not the name of the file with something added, which may be too long.
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


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


def sweep(folder: Path) -> None:
    """Removes what killed runs left unfinished in a folder, once it is an hour old."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError):  # it is a folder, or another process has just renamed it
            if time.time() - path.stat().st_mtime > HOUR:  # a younger one may be at work
                path.unlink()
