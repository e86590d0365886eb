"""Which files are restored and where everything goes; nothing is replaced unasked."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genprior.errors import ImageError
from genprior.images import WRITABLE, image_files

MADE = ".genprior"


@dataclass(frozen=True)
class Place:
    """An input and what is written for it.

    Arguments:
        source: The file to restore.
        output: Where the picture goes; the other files stand beside it.
        extras: What else is written: "mean", "std", "panel", "sample-00" and so on.
    """

    source: Path
    output: Path
    extras: tuple[str, ...] = ()

    @property
    def sidecar(self) -> Path:
        """Where the record goes."""
        return self.output.with_suffix(".json")

    def side(self, extra: str) -> Path:
        """Where one of the extras goes."""
        return self.output.with_name(f"{self.output.stem}.{extra}.png")

    @property
    def written(self) -> list[Path]:
        """All files that are written."""
        return [self.output, self.sidecar, *map(self.side, self.extras)]


def list_files(files: Sequence[Path]) -> list[Path]:
    """Image files among paths, folders opened; the results of earlier runs are left out.

    Raises:
        ImageError: A path does not exist, or a folder holds no image.
    """
    found = []
    for path in files:
        if path.is_dir():
            inside = [p for p in image_files(path) if MADE not in p.suffixes]
            if not inside:
                raise ImageError(f"{path} holds no image but results (*{MADE}.*): name the files")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ImageError(f"{path}: no such file or folder: check the name")
    return found


def plan(
    files: Sequence[Path],
    output: Path | None = None,
    save: Sequence[str] = (),
    samples: int = 1,
    overwrite: bool = False,
) -> list[Place]:
    """Where the results of every file go.

    Arguments:
        files: The inputs.
        output: One file, a folder that may not exist yet, or None: beside each input.
        save: What to save besides the picture: "mean", "std", "samples", "panel".
        samples: How many samples are drawn.
        overwrite: Files that exist may be replaced, but for the inputs.

    Raises:
        ImageError: Two results would go to one place, onto an input or a file that exists, or
            a format or a folder cannot be written.
    """
    names = [name for name in save if name != "samples"]
    if "samples" in save:
        names += [f"sample-{k:02d}" for k in range(samples)]
    one = output is not None and bool(output.suffix) and not output.is_dir()
    if one and len(files) > 1 and output.suffix.lower() in WRITABLE:
        raise ImageError(f"{output} is one file for {len(files)} inputs: give a folder to -o")
    if one:
        places = [Place(path, output, tuple(names)) for path in files]
    else:
        places = [
            Place(p, (output or p.parent) / f"{p.stem}{MADE}{p.suffix}", tuple(names))
            for p in files
        ]
    taken: dict[Path, Path] = {}
    inputs = {path.resolve() for path in files}
    for place in places:
        for path in place.written:
            if path in taken:
                raise ImageError(
                    f"{taken[path]} and {place.source} would both be written to {path}: "
                    f"restore them apart, into two folders"
                )
            if path.resolve() in inputs:
                raise ImageError(f"{path} is an input: choose another -o")
            taken[path] = place.source
    for place in places:
        check_free([place.output], overwrite)
        check_free([place.sidecar, *map(place.side, place.extras)], overwrite, formats=None)
    return places


def check_free(
    paths: Iterable[Path], overwrite: bool, formats: Sequence[str] | None = WRITABLE
) -> None:
    """Makes sure, before any work, that files can be written.

    Arguments:
        paths: The files.
        overwrite: They may exist.
        formats: Suffixes that are fine, None for any.

    Raises:
        ImageError: One has another suffix, exists, or cannot be where it should.
    """
    for path in paths:
        if formats is not None and path.suffix.lower() not in formats:
            raise ImageError(
                f"{path}: cannot write {path.suffix or 'files without suffix'}: give to -o a "
                f"file that ends with one of {', '.join(formats)}"
            )
        if path.is_dir() or (path.exists() and not overwrite):
            raise ImageError(f"{path} exists: add --overwrite, or another -o")
        there = next(folder for folder in path.absolute().parents if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise ImageError(f"{path}: {there} is no folder that can be written: change -o")
