"""Input and output paths of a restoration, with checks that no file is overwritten unasked."""

import glob
import json
import os
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from genprior.core.checksums import sha256
from genprior.core.errors import ImageError
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
        return self.file.suffix if self.data is None else suffix_for(self.data, self.file)

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
    """

    source: Path
    output: Path
    extras: tuple[str, ...] = ()
    below: Path = Path()
    data: bytes | None = None

    @property
    def sidecar(self) -> Path:
        """Path of the JSON sidecar."""
        return self.output.with_suffix(".json")

    def side(self, extra: str) -> Path:
        """Returns the path of an extra image."""
        return self.output.with_name(f"{self.output.stem}.{extra}.png")

    @property
    def pictures(self) -> list[Path]:
        """Paths of the images that are written."""
        return [self.output, *map(self.side, self.extras)]

    @property
    def written(self) -> list[Path]:
        """Paths of all files that are written."""
        return [*self.pictures, self.sidecar]

    def content(self) -> bytes:
        """Returns the content of the source.

        Raises:
            ImageError: The source cannot be read.
        """
        return read_bytes(self.source) if self.data is None else self.data

    def is_made(self, task: str) -> bool:
        """Returns whether a task has written all these files from the current input.

        The checksums in the sidecar are compared with the files.
        """
        try:
            record = json.loads(self.sidecar.read_text())
            files = {path.name: sha256(path.read_bytes()) for path in self.pictures}
            made = record["task"], record["files"], record["input_sha256"]
            return made == (task, files, sha256(self.content()))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def may_be_redone(self, task: str, whole: bool) -> bool:
        """Returns whether the existing outputs may be replaced when a task is repeated.

        Arguments:
            task: Name of the task.
            whole: True requires complete outputs, see `is_made`. False permits outputs whose
                sidecar names the task, is missing or cannot be read.
        """
        if whole:
            return self.is_made(task)
        try:
            return json.loads(self.sidecar.read_text())["task"] == task
        except (OSError, ValueError, KeyError, TypeError):  # left by a killed run
            return True

    def read(self, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """Returns the image to restore; see `read_image`."""
        picture = parse_image(self.content(), self.source, max_pixels)
        return replace(picture, name=self.below / self.source.name)


def list_files(files: Sequence[Path], recursive: bool = False) -> list[InputFile]:
    """Returns the image files that paths, folders and glob patterns stand for.

    Results of earlier runs in folders and among matches of patterns are left out.

    Arguments:
        files: Files, folders, or glob patterns such as "photos/*.jpg".
        recursive: Include subfolders.

    Raises:
        ImageError: A path does not exist, or a folder contains no image.
    """
    found = []
    for path in files:
        if path.is_dir():
            found += [
                InputFile(p, p.parent.relative_to(path)) for p in image_files(path, recursive)
            ]
        elif path.exists():  # a pipe can be read only once
            found.append(InputFile(path, data=None if path.is_file() else read_bytes(path)))
        else:
            matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
            matches = [p for p in matches if p.is_file() and MADE not in p.suffixes]
            if not matches:
                raise ImageError(f"{path}: no such file or folder: check the name")
            found += map(InputFile, matches)
    return found


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
            a result would replace an input or an existing file, or a format or folder cannot
            be written.
    """
    inputs = [file if isinstance(file, InputFile) else InputFile(file) for file in files]
    names = [name for name in save if name != "samples"]
    if "samples" in save:
        names += [f"sample-{k:02d}" for k in range(samples)]
    one = output is not None and bool(output.suffix) and not output.is_dir()
    if one and len(files) > 1 and output.suffix.lower() in WRITABLE:
        raise ImageError(f"{output} is one file for {len(files)} inputs: give a folder to -o")

    def target(file: InputFile) -> OutputPaths:
        folder = output / file.below if output else file.file.parent
        made = folder / f"{file.stem}{MADE}{suffix or result_suffix(file.suffix)}"
        return OutputPaths(file.file, output if one else made, tuple(names), file.below, file.data)

    targets = list(map(target, inputs))
    _check_distinct(targets, reads)
    for each in targets:
        free = overwrite or (redo is not None and each.may_be_redone(redo, whole=one))
        check_free([each.output], free)
        check_free([each.sidecar, *map(each.side, each.extras)], free, formats=None)
    return targets


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
    read = {path.resolve() for path in inputs}
    for path in paths:
        if path.resolve() in read:
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
        ImageError: A file has another suffix, exists, is read, or its folder is not writable.
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
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ImageError(f"{path}: {parent} is not a writable folder: choose another -o")
