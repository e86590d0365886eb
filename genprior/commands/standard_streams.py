"""Standard input and output as files: `-`."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from genprior.api.files.paths import InputFile

STREAM = Path("-")


@contextmanager
def streams(
    files: Sequence[Path], output: Path | None, recursive: bool, as_json: bool
) -> "Iterator[tuple[list[InputFile], Path | None, bool]]":
    """The files to restore, where to, and whether that is standard output.

    A picture for standard output is written to a folder of its own, and printed when all is
    done. The result of standard input goes there unless it is told otherwise.

    Raises:
        UsageError: Something cannot be streamed.
    """
    if STREAM in files and len(files) > 1:
        raise click.UsageError("- is standard input: give it alone")
    to_stdout = output == STREAM or (output is None and STREAM in files)
    if to_stdout and as_json:
        raise click.UsageError("standard output is for the picture: give --json another -o")
    if STREAM in files and sys.stdin is None:
        raise click.UsageError("standard input is closed: give a file instead of -")
    if to_stdout and sys.stdout is None:
        raise click.UsageError("standard output is closed: give -o a file")
    from genprior.api.files.paths import InputFile, list_files

    if STREAM in files:
        found = [InputFile(STREAM, data=sys.stdin.buffer.read())]
    else:
        found = list_files(files, recursive)
    if not to_stdout:
        yield found, output, False
        return
    if len(found) != 1:
        raise click.UsageError(f"-o - is one picture for {len(found)} inputs: give a folder")
    with tempfile.TemporaryDirectory(prefix="genprior-") as folder:
        yield found, Path(folder), True
        made = (p for p in Path(folder).rglob("*") if p.is_file() and p.suffix != ".json")
        (picture,) = made
        sys.stdout.buffer.write(picture.read_bytes())
        sys.stdout.buffer.flush()
