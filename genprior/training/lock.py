"""Exclusive lock on the folder of a training run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from genprior.core.errors import SettingError

LOCK = ".lock"
# In seconds: enough for a second attempt if a run that ends removes the file during the first.
TIMEOUT, PAUSE = 0.02, 0.001


@contextmanager
def exclusive_run(folder: Path) -> Iterator[None]:
    """Locks a folder, so that a second training in it is refused.

    The operating system releases the lock when the process ends, even if it is killed. Without
    effect if the folder does not exist or is read-only, or if its file system has no locks.

    Raises:
        SettingError: Another training is running in the folder.
    """
    path = folder / LOCK
    # The fallback of filelock would be a file that outlives a killed process.
    lock = FileLock(path, fallback_to_soft=False)
    if folder.is_dir():  # filelock would create it
        try:
            lock.acquire(timeout=TIMEOUT, poll_interval=PAUSE)
        except Timeout:
            raise SettingError(
                f"a training is running in {folder}: wait for its end, or choose another folder"
            ) from None
        except OSError:
            pass
    try:
        yield
    finally:
        if lock.is_locked:
            if os.name == "posix":  # where filelock leaves the file behind
                with suppress(OSError):
                    path.unlink()
            lock.release()
