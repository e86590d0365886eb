"""A folder in which one training is at work: a lock that ends with its process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from genprior.errors import SettingError

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of a folder meanwhile, where its file system has locks.

    The system takes the lock away when the process ends, however that ends. Its file stays: who
    removed it could not know whether another process had just locked it.

    Raises:
        SettingError: Another training is at work in the folder.
    """
    try:
        file = open(folder / LOCK, "ab")
    except OSError:  # there is no such folder, or nothing can be written: that is told later
        yield
        return
    with file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise SettingError(
                f"{folder} has a training at work: wait for its end, or choose another folder"
            ) from None
        except OSError:  # the file system has no locks
            pass
        yield


def _lock(file: BinaryIO) -> None:
    """Locks an open file, or raises what the system does where another has locked it."""
    try:
        import fcntl
    except ImportError:  # on Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
