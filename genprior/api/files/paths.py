"""Input and output paths of a restoration, with checks that no file is overwritten by accident."""

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from genprior.core.atomic_files import temporary_beside
from genprior.core.checksums import file_digest, sha256
from genprior.core.errors import ImageError
from genprior.core.records import read_json
from genprior.io.images import (
    MADE,
    MAX_PIXELS,
    WRITABLE,
    ImageFile,
    image_files,
    parse_image,
    read_bytes,
    result_suffix,
    suffix_for,
)

# Largest content of a pipe or of standard input, which may not end.
MAX_STREAM_BYTES = 2**31


class _Made(msgspec.Struct):
    """The entry of a sidecar that names the task."""

    task: str


class _Complete(_Made):
    """The entries of a sidecar that tell whether a result is complete and up to date."""

    files: dict[str, str]
    input_sha256: str


class InputFile(NamedTuple):
    """An input file, its folder relative to the folder that the user gave, and its content.

    `data` is None if the content has not been read yet.
    """

    file: Path
    below: Path = Path()
    data: bytes | None = None

    @property
    def suffix(self) -> str:
        """Suffix of the file; for standard input and pipes, the suffix that fits the content."""
        if self.data is None:
            return self.file.suffix
        try:
            return suffix_for(self.data, self.file)
        except ImageError:  # raised again when the image is read
            return WRITABLE[0]

    @property
    def stem(self) -> str:
        """Name of the file without suffix; "stdin" for standard input and pipes."""
        return self.file.stem if self.data is None else "stdin"


@dataclass(frozen=True)
class OutputPaths:
    """Paths of an input file and of all files that are written for it.

    Arguments:
        source: The file to restore.
        output: Path of the restored image; the other files are written beside it.
        extras: Names of the extra images: "mean", "std", "panel", "q05", "sample-00" and so on.
        below: Folder of the source, relative to the folder that the user gave.
        data: Content of the source, if it is standard input or a pipe.
        overwrite: Existing files may be replaced.
    """

    source: Path
    output: Path
    extras: tuple[str, ...] = ()
    below: Path = Path()
    data: bytes | None = None
    overwrite: bool = False

    @property
    def sidecar(self) -> Path:
        """Path of the JSON sidecar."""
        return self.output.with_suffix(".json")

    def side(self, extra: str) -> Path:
        """Returns the path of an extra image."""
        return self.output.with_name(f"{self.output.stem}.{extra}.png")

    @property
    def images(self) -> list[Path]:
        """Paths of the images that are written."""
        return [self.output, *map(self.side, self.extras)]

    @property
    def written(self) -> list[Path]:
        """Paths of all files that are written."""
        return [*self.images, self.sidecar]

    def content(self) -> bytes:
        """Returns the content of the source.

        Raises:
            ImageError: The source cannot be read.
        """
        if self.data is not None:
            return self.data
        if self.source.exists() and not self.source.is_file():
            raise ImageError(f"{self.source}: is not a regular file: give an image file")
        return read_bytes(self.source)

    def check_free(self) -> None:
        """Checks that all files can be written, whatever their format; see `check_free`.

        Raises:
            ImageError: They cannot, or the sidecar there describes a file of another name.
        """
        if not self.overwrite and (other := self._described()):
            raise ImageError(
                f"{self.sidecar} describes {other}: choose another -o, or add --overwrite"
            )
        check_free(self.written, self.overwrite, formats=None)

    def _described(self) -> str | None:
        """Returns the name of the result that the sidecar describes, if it is another one."""
        with suppress(OSError, ValueError):
            files = read_json(self.sidecar, _Complete).files
            return next(iter(files), None) if self.output.name not in files else None
        return None

    def check_format(self) -> None:
        """Checks that the suffix of the result is that of a format that can be written.

        Raises:
            ImageError: It is not.
        """
        if self.output.suffix.lower() not in WRITABLE:
            raise ImageError(
                f"{self.source}: a result cannot be written as "
                f"{self.source.suffix or 'a file without suffix'}: choose a format, such as "
                f"--ext png"
            )

    def is_made(self, task: str) -> bool:
        """Returns whether a task has written all these files from the current input.

        The checksums in the sidecar are compared with the files.
        """
        try:
            record = read_json(self.sidecar, _Complete)
            if not all(path.is_file() for path in self.images):
                return False
            files = {path.name: file_digest(path) for path in self.images}
            made = record.task, record.files, record.input_sha256
            return made == (task, files, sha256(self.content()))
        except (OSError, ValueError):
            return False

    def may_be_redone(self, task: str, whole: bool) -> bool:
        """Returns whether the existing outputs may be replaced when a task is repeated.

        Arguments:
            task: Name of the task.
            whole: True requires complete outputs, see `is_made`. False permits outputs whose
                sidecar names the task and no other result, is missing or cannot be read.
        """
        if whole:
            return self.is_made(task)
        if self._described():
            return False
        try:
            return read_json(self.sidecar, _Made).task == task
        except (OSError, ValueError):  # left by a killed run
            return True

    def read(self, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """Returns the image to restore; see `read_image`."""
        image = parse_image(self.content(), self.source, max_pixels)
        return replace(image, name=self.below / self.source.name)


def list_files(files: Sequence[Path], recursive: bool = False) -> list[InputFile]:
    """Returns the image files that paths, folders and glob patterns stand for.

    Results of earlier runs in folders and among matches of patterns are left out. If one of
    several paths does not exist, it is returned unchanged, and is an error of that file only.

    Arguments:
        files: Files, folders, or glob patterns such as "photos/*.jpg".
        recursive: Include subfolders.

    Raises:
        ImageError: The only path does not exist, or a folder contains no image.
    """
    found = []
    for path in files:
        if path.is_dir():
            found += [
                InputFile(p, p.parent.relative_to(path)) for p in image_files(path, recursive)
            ]
        elif path.is_fifo():  # can be read only once
            with path.open("rb") as pipe:
                found.append(InputFile(path, data=read_stream(pipe, str(path))))
        elif path.exists():
            found.append(InputFile(path))
        else:
            matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
            matches = [p for p in matches if p.is_file() and MADE not in p.suffixes]
            if not matches and len(files) == 1:
                raise ImageError(f"{path}: no such file or folder: check the name")
            found += map(InputFile, matches or [path])
    return found


def read_stream(stream: BinaryIO, name: str) -> bytes:
    """Returns the content of standard input or of a pipe.

    Raises:
        ImageError: It has more than `MAX_STREAM_BYTES`, or does not end.
    """
    data = bytearray()
    while part := stream.read(2**20):
        data += part
        if len(data) > MAX_STREAM_BYTES:
            raise ImageError(f"{name}: has more than {MAX_STREAM_BYTES} bytes: give a file")
    return bytes(data)


def plan(
    files: Sequence[InputFile | Path],
    output: Path | None = None,
    save: Sequence[str] = (),
    samples: int = 1,
    overwrite: bool = False,
    suffix: str | None = None,
    redo: str | None = None,
    reads: Sequence[Path] = (),
) -> list[OutputPaths]:
    """Returns the output paths of every input, after checks that they can be written.

    The result of photo.jpg is photo.genprior.jpg, but photo.jpg.genprior.jpg if photo.png of the
    same folder is another input. If the result of one of several inputs has a name that cannot be
    written, no error is raised here: `restore_files.run` reports it for that file.

    Arguments:
        files: The inputs.
        output: A file, or a folder (created if missing). None writes beside each input.
        save: Names of the extra outputs besides the restored image, see `save_options`.
        samples: Number of samples.
        overwrite: Existing files may be replaced, except inputs.
        suffix: Suffix of the results; None keeps that of each input.
        redo: Task whose results of an earlier run may be replaced. An output file that the user
            named must be complete; results with automatic names qualify unless their sidecar
            names another task, see `OutputPaths.may_be_redone`.
        reads: Other files that are read, and must not be replaced.

    Raises:
        ImageError: Two results have one path (also if it differs in case or Unicode form only),
            a result would replace an input or an existing file, or a folder, or the format or
            name of the only result, cannot be written.
    """
    inputs = [file if isinstance(file, InputFile) else InputFile(file) for file in files]
    names = [name for name in save if name != "samples"]
    if "samples" in save:
        names += [f"sample-{k:02d}" for k in range(samples)]
    one = output is not None and bool(output.suffix) and not os.path.isdir(output)
    if one and len(files) > 1 and output.suffix.lower() in WRITABLE:
        raise ImageError(f"{output} is one file for {len(files)} inputs: give a folder to -o")

    def folder_of(file: InputFile) -> Path:
        return output / file.below if output else file.file.parent

    # the results of photo.jpg and photo.png would share one sidecar
    stems = Counter(_caseless(folder_of(file) / file.stem) for file in inputs)

    def target(file: InputFile) -> OutputPaths:
        folder = folder_of(file)
        several = stems[_caseless(folder / file.stem)] > 1
        stem = f"{file.stem}{file.suffix}" if several else file.stem
        made = folder / f"{stem}{MADE}{suffix or result_suffix(file.suffix)}"
        return OutputPaths(file.file, output if one else made, tuple(names), file.below, file.data)

    targets = list(map(target, inputs))
    _check_distinct(targets, reads)
    targets = [replace(each, overwrite=overwrite or _may_be_redone(each, redo, one))
               for each in targets]
    for each in targets:
        if len(targets) == 1:
            check_free([each.output], each.overwrite)
        if len(targets) == 1 or any(map(os.path.lexists, each.written)):
            each.check_free()
        else:
            check_folder(each.output)
    return targets


def _may_be_redone(target: OutputPaths, task: str | None, whole: bool) -> bool:
    exists = any(map(os.path.lexists, target.written))
    return task is not None and exists and target.may_be_redone(task, whole)


def _check_distinct(targets: Sequence[OutputPaths], reads: Sequence[Path]) -> None:
    """Checks that all output paths differ, from each other and from the files that are read.

    File systems differ in which names they take for one file. Paths that differ in case or
    Unicode form only count as equal, so that the same call works on all of them.
    """
    taken: dict[str, OutputPaths] = {}
    written = [path for target in targets for path in target.written]
    _check_not_read(written, [*(target.source for target in targets), *reads])
    for target in targets:
        for path in target.written:
            key = _caseless(path)
            if key in taken:
                raise ImageError(
                    f"{taken[key].source} and {target.source} would both be written to {path} "
                    f"(names that differ in case or Unicode form only count as one): restore them "
                    f"separately, into two folders"
                )
            taken[key] = target


def _caseless(path: Path) -> str:
    """Returns a key that is equal for paths that differ in case or Unicode form only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def _check_not_read(paths: Iterable[Path], inputs: Iterable[Path]) -> None:
    read = set(map(os.path.realpath, inputs))
    for path in paths:
        if os.path.realpath(path) in read:
            raise ImageError(f"{path} is an input: choose another -o")


def check_free(
    paths: Collection[Path],
    overwrite: bool,
    formats: Sequence[str] | None = WRITABLE,
    reads: Sequence[Path] = (),
) -> None:
    """Checks, before any work, that files can be written.

    Arguments:
        paths: Paths of the files.
        overwrite: Existing files may be replaced.
        formats: Permitted suffixes; None permits any.
        reads: Files that are read, and must not be replaced.

    Raises:
        ImageError: A file has another suffix, exists, or is read; its name is too long or that
            of a link to nothing; or its folder is not writable.
    """
    _check_not_read(paths, reads)
    for path in paths:
        if formats is not None and path.suffix.lower() not in formats:
            raise ImageError(
                f"{path}: cannot write {path.suffix or 'files without suffix'}: give -o a "
                f"file that ends with one of {', '.join(formats)}, or an existing folder"
            )
        if os.path.isdir(path) or (os.path.exists(path) and not overwrite):
            raise ImageError(f"{path} exists: add --overwrite, or choose another -o")
        if os.path.exists(path) and not os.path.isfile(path):
            raise ImageError(f"{path} is not a regular file: choose another -o")
        check_folder(path)
        check_name(path)


def check_name(path: Path) -> None:
    """Checks that the file system accepts the name of a new file or folder.

    Raises:
        ImageError: A name is too long, or the path leads through a link to nothing.
    """
    try:
        existing = _existing_folder(path)
        missing = path.absolute().relative_to(existing).parts
        # The names of a folder that does not exist are not looked at, hence one at a time.
        for full in (path, temporary_beside(path), *(existing / name for name in missing)):
            with suppress(FileNotFoundError):
                os.lstat(full)
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be written ({error.strerror.lower()}): choose another -o"
        ) from error
    first = existing / missing[0]
    if first.is_symlink() and not first.exists():
        raise ImageError(
            f"{path}: {first} is a link to {os.readlink(first)}, which does not exist: remove the "
            f"link, or choose another -o"
        )


def check_folder(path: Path) -> None:
    """Checks that the folder of a new file or folder is writable, or can be created.

    Raises:
        ImageError: It is not.
    """
    folder = _existing_folder(path)
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ImageError(f"{path}: {folder} is not a writable folder: choose another -o")


def _existing_folder(path: Path) -> Path:
    """Returns the innermost of the folders of a path that exists."""
    return next(Path(folder) for folder in path.absolute().parents if os.path.exists(folder))
