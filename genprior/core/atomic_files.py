"""Atomic writing: a file or folder appears under its name only when it is complete."""

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY, DIGITS = ".genprior-", 16
TEMPORARY_NAME = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{{DIGITS}}}")
HOUR = 3600


class AtomicFiles:
    """Atomic writing of several files in a `with` block: all complete, or none.

    Each file is written under a temporary name in its folder and fsynced. At the end of the block
    all are renamed, in the order of writing. If the block raises, or a file cannot be renamed,
    the older files stay. A symbolic link stays a link: the file that it points to is replaced. A
    new file gets the permissions and the owner of the file that it replaces.

    Arguments:
        exclusive: Replace no file. If another process has created one of the files meanwhile, the
            end of the block raises `FileExistsError`.
    """

    def __init__(self, exclusive: bool = False) -> None:
        self.exclusive = exclusive
        self._temporary: dict[Path, Path] = {}

    def __enter__(self) -> "AtomicFiles":
        return self

    def write(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        """Writes a file under a temporary name; arguments as for `write_atomic`."""
        path = self._file(path)
        temporary = temporary_beside(path)
        self._temporary[path] = temporary
        with _named_in_errors(path), open(temporary, "xb") as file:
            write(file)
            file.flush()
            _keep_permissions(file.fileno(), path)
            os.fsync(file.fileno())

    def read(self, path: Path) -> bytes:
        """Returns the content written for a file, before it is renamed to `path`."""
        return self._temporary[self._file(path)].read_bytes()

    def _file(self, path: Path) -> Path:
        """Returns the file to create: if it may be replaced, the one that a link points to."""
        return path if self.exclusive else _written_file(path)

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            if kind is None:
                self._rename()
        finally:
            for temporary in self._temporary.values():
                temporary.unlink(missing_ok=True)
        for folder in {path.parent for path in self._temporary}:
            _sync(folder)

    def _rename(self) -> None:
        """Renames all files; if one cannot be renamed, the older files get their names back."""
        older: dict[Path, Path] = {}
        renamed: list[tuple[Path, bool]] = []
        try:
            for path, temporary in self._temporary.items():
                with _named_in_errors(path):
                    new = self.exclusive or not os.path.lexists(path)
                    if self.exclusive:
                        _rename_to_free(temporary, path)
                    else:
                        _link_older(path, older)
                        os.replace(temporary, path)
                renamed.append((path, new))
        except BaseException:
            for path, new in renamed:
                with suppress(OSError):
                    if path in older:
                        os.replace(older[path], path)
                    elif new:
                        path.unlink()
            raise
        finally:
            for link in older.values():
                link.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """Returns a new temporary name in the folder of a file."""
    # The name of the file plus a suffix could exceed the length limit.
    return path.parent / f"{TEMPORARY}{secrets.token_hex(DIGITS // 2)}"


@contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    """Replaces the name of a temporary file in errors by the name of the file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise


def _rename_to_free(temporary: Path, path: Path) -> None:
    """Renames a file unless the new name is taken, which the file system decides.

    Raises:
        FileExistsError: The name is taken.
    """
    try:
        os.link(temporary, path)  # unlike a rename, this never replaces a file
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            os.replace(temporary, path)
        except BaseException:
            path.unlink()
            raise


def _link_older(path: Path, older: dict[Path, Path]) -> None:
    """Links the file that is about to be replaced under another name, if that is possible."""
    link = temporary_beside(path)
    with suppress(OSError):
        os.link(path, link)
        older[path] = link


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file completely or not at all: temporary file in its folder, fsync, rename.

    Arguments:
        path: The file; an older one is overwritten.
        write: Called with the open temporary file.

    Raises:
        OSError: The file cannot be written, or the older one is a device or a pipe.
    """
    with AtomicFiles() as files:
        files.write(path, write)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to write files to, which gets its name when the block has ended.

    Its parents are created. A block that raises leaves nothing. What killed processes have left
    beside it is removed after an hour.

    Raises:
        OSError: There is a file or a folder with this name that is not empty.
    """
    temporary = temporary_beside(path)
    with _named_in_errors(path):
        temporary.mkdir(parents=True)
        try:
            sweep(path.parent)
            yield temporary
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    _sync(path.parent)


def _written_file(path: Path) -> Path:
    """Returns the file that a path stands for: the target if the path is a symbolic link.

    Raises:
        OSError: It exists and is a device or a pipe, which a rename would replace by a file.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return path


def _keep_permissions(descriptor: int, path: Path) -> None:
    """Gives an open file the owner and the permissions of an older file, as far as permitted."""
    if os.name != "posix" or not path.is_file():
        return
    older, newer = path.stat(), os.fstat(descriptor)
    with suppress(OSError):  # only root can give files away
        if (older.st_uid, older.st_gid) != (newer.st_uid, newer.st_gid):
            os.fchown(descriptor, older.st_uid, older.st_gid)
    with suppress(OSError):  # file systems without permissions
        os.fchmod(descriptor, stat.S_IMODE(older.st_mode))


def _sync(folder: Path) -> None:
    """Makes new file names in a folder survive a power cut, if the file system supports it."""
    if os.name != "posix":
        return
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def unfinished(folder: Path) -> list[Path]:
    """Returns the temporary files in a folder: of killed runs, and of processes still writing.

    A temporary folder of `new_folder` is among them.
    """
    return [path for path in folder.glob(f"{TEMPORARY}*") if TEMPORARY_NAME.fullmatch(path.name)]


def sweep(folder: Path) -> None:
    """Removes the temporary files and folders in a folder that are more than an hour old."""
    for path in unfinished(folder):
        with suppress(OSError):  # renamed by another process meanwhile
            if time.time() - path.stat().st_mtime > HOUR:  # a newer one may still be written
                discard(path)


def discard(path: Path) -> None:
    """Removes a temporary file or folder; of a link, the link itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
