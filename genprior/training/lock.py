"""A folder in which one training is at work: a lock that ends with its process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from genprior.core.errors import SettingError

LOCK, TRIES = ".lock", 100


@contextmanager
def exclusive_run(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of a folder meanwhile, where its file system has locks.

    The system takes the lock away when the process ends, however that ends.

    Raises:
        SettingError: Another training is at work in the folder.
    """
    try:
        file = _locked(folder / LOCK)
    except (BlockingIOError, PermissionError):
        raise SettingError(
            f"{folder} has a training at work: wait for its end, or choose another folder"
        ) from None
    try:
        yield
    finally:
        if file is not None:
            _remove(folder / LOCK, file)


def _locked(path: Path) -> BinaryIO | None:
    """A file with a lock on it, if that can be had; raises as the system if another has it."""
    for _ in range(TRIES):
        try:
            file = open(path, "ab")
        except OSError:  # there is no such folder, or nothing can be written: that is told later
            return None
        try:
            _lock(file)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:  # who had the lock has just removed it
            pass
        except (BlockingIOError, PermissionError):
            file.close()
            raise
        except OSError:  # the file system has no locks
            return file
        file.close()
    return None


def _lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:  # on Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove(path: Path, file: BinaryIO) -> None:
    if os.name != "posix":  # Windows removes a file that no one has open
        file.close()
    with suppress(OSError):
        path.unlink()
    file.close()
