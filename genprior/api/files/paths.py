"""Which files are restored and where everything goes; nothing is replaced unasked."""

import glob
import json
import os
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from genprior.core.atomic_files import TEMPORARY
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
    suffix_for,
)


class InputFile(NamedTuple):
    """A file, the folder it was found in below the one that was given, and what it holds.

    `data` is None where the file is still to be read.
    """

    file: Path
    below: Path = Path()
    data: bytes | None = None

    @property
    def suffix(self) -> str:
        """That of the file; of standard input the one it should have."""
        return self.file.suffix if self.data is None else suffix_for(self.data, self.file)

    @property
    def stem(self) -> str:
        """Name of the file without suffix."""
        return self.file.stem if self.data is None else "stdin"


@dataclass(frozen=True)
class OutputPaths:
    """An input and what is written for it.

    Arguments:
        source: The file to restore.
        output: Where the picture goes; the other files stand beside it.
        extras: What else is written: "mean", "std", "panel", "q05", "sample-00" and so on.
        below: Folder of the source, below the one that was given.
        data: What the source holds, if it is not a file.
    """

    source: Path
    output: Path
    extras: tuple[str, ...] = ()
    below: Path = Path()
    data: bytes | None = None

    @property
    def sidecar(self) -> Path:
        """Where the record goes."""
        return self.output.with_suffix(".json")

    def side(self, extra: str) -> Path:
        """Where one of the extras goes."""
        return self.output.with_name(f"{self.output.stem}.{extra}.png")

    @property
    def pictures(self) -> list[Path]:
        """The pictures that are written."""
        return [self.output, *map(self.side, self.extras)]

    @property
    def written(self) -> list[Path]:
        """All files that are written."""
        return [*self.pictures, self.sidecar]

    def content(self) -> bytes:
        """What the source holds.

        Raises:
            ImageError: It cannot be read.
        """
        return read_bytes(self.source) if self.data is None else self.data

    def is_made(self, task: str) -> bool:
        """Whether a task has written all that this is for, from the input as it is now."""
        try:
            record = json.loads(self.sidecar.read_text())
            files = {path.name: sha256(path.read_bytes()) for path in self.pictures}
            made = record["task"], record["files"], record["input_sha256"]
            return made == (task, files, sha256(self.content()))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def may_be_redone(self, task: str, whole: bool) -> bool:
        """Whether what is there is of a task, by its record; if not whole, it may have none."""
        if whole:
            return self.is_made(task)
        try:
            return json.loads(self.sidecar.read_text())["task"] == task
        except (OSError, ValueError, KeyError, TypeError):  # what a killed run left
            return True

    def read(self, max_pixels: int = MAX_PIXELS) -> ImageFile:
        """The picture to restore; see `read_image`."""
        picture = parse_image(self.content(), self.source, max_pixels)
        return replace(picture, name=self.below / self.source.name)


def list_files(files: Sequence[Path], recursive: bool = False) -> list[InputFile]:
    """Image files among paths, folders and patterns opened; results of earlier runs left out.

    Arguments:
        files: Files, folders, or patterns such as "photos/*.jpg" that no shell has opened.
        recursive: Look into the folders of folders too.

    Raises:
        ImageError: A path does not exist, or a folder holds no image.
    """
    found = []
    for path in files:
        if path.is_dir():
            found += [
                InputFile(p, p.parent.relative_to(path)) for p in image_files(path, recursive)
            ]
        elif path.exists():  # a pipe can be read but once
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
    """Where the results of every file go.

    Arguments:
        files: The inputs.
        output: One file, a folder that may not exist yet, or None: beside each input.
        save: What to save besides the picture, see `saves`.
        samples: How many samples are drawn.
        overwrite: Files that exist may be replaced, but for the inputs.
        suffix: Format of the results; None is that of each input.
        redo: The task whose results of an earlier run may be replaced: those that their name
            tells, unless their record is of another task, or one file that is whole.
        reads: Files that are read besides the inputs, and not replaced either.

    Raises:
        ImageError: Two results would go to one place, onto an input or a file that exists, or
            a format or a folder cannot be written.
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
        made = folder / f"{file.stem}{MADE}{suffix or file.suffix}"
        return OutputPaths(file.file, output if one else made, tuple(names), file.below, file.data)

    targets = list(map(target, inputs))
    _check_apart(targets, reads)
    for each in targets:
        free = overwrite or (redo is not None and each.may_be_redone(redo, whole=one))
        check_free([each.output], free)
        check_free([each.sidecar, *map(each.side, each.extras)], free, formats=None)
    return targets


def _check_apart(targets: Sequence[OutputPaths], reads: Sequence[Path]) -> None:
    """Makes sure that no two results go to one place, and none onto what is read."""
    taken: dict[str, tuple[Path, OutputPaths]] = {}
    written = [path for target in targets for path in target.written]
    _check_no_input(written, [*(target.source for target in targets), *reads])
    for target in targets:
        for path in target.written:
            if _folded(path) not in taken:
                taken[_folded(path)] = path, target
                continue
            before, other = taken[_folded(path)]
            if path != before and _are_two(before, path):
                continue
            where = f"both be written to {path}" if path == before else (
                f"be written to {before} and {path}, which are one file there"
            )
            raise ImageError(
                f"{other.source} and {target.source} would {where}: restore them apart, into "
                f"two folders"
            )


def _folded(path: Path) -> str:
    """One name for all that are one on some file system, by case or form of the letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def _are_two(one: Path, other: Path) -> bool:
    """Whether the file system tells two paths apart, as tried out in a folder that is there."""
    folder = next(f for f in one.absolute().parents if f.exists())
    names = [os.path.relpath(path.absolute(), folder) for path in (one, other)]
    if names[1].startswith(os.pardir):
        return False
    with suppress(OSError), TemporaryDirectory(prefix=TEMPORARY, dir=folder) as trial:
        first, second = (Path(trial, name) for name in names)
        first.parent.mkdir(parents=True, exist_ok=True)
        first.touch()
        return not second.exists()
    return False


def _check_no_input(paths: Iterable[Path], inputs: Iterable[Path]) -> None:
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
    """Makes sure, before any work, that files can be written.

    Arguments:
        paths: The files.
        overwrite: They may exist.
        formats: Suffixes that are fine, None for any.
        reads: Files that are read, and so not replaced.

    Raises:
        ImageError: One has another suffix, exists, or cannot be where it should.
    """
    _check_no_input(paths, reads)
    for path in paths:
        if formats is not None and path.suffix.lower() not in formats:
            raise ImageError(
                f"{path}: cannot write {path.suffix or 'files without suffix'}: give to -o a "
                f"file that ends with one of {', '.join(formats)}, or a folder that is there"
            )
        if os.path.isdir(path) or (os.path.exists(path) and not overwrite):
            raise ImageError(f"{path} exists: add --overwrite, or another -o")
        there = next(folder for folder in path.absolute().parents if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ImageError(f"{path}: {there} is no folder that can be written: change -o")
