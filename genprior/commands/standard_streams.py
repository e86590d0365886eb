"""Standard input and standard output as files: `-`."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from genprior.api.files.paths import InputFile

STREAM = Path("-")


def reserve_standard_streams() -> None:
    """Opens the null device for each standard stream that is closed.

    Otherwise files that are opened later get the numbers 0 to 2, and the messages that libraries
    write to these numbers. `sys.stdin` and `sys.stdout` stay None, which commands check.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def echo_error(text: str) -> None:
    """Prints a line on standard error; where that cannot be written, the line is lost."""
    with suppress(OSError, UnicodeError):
        click.echo(text, err=True)


@contextmanager
def streams(
    files: Sequence[Path], output: Path | None, recursive: bool, as_json: bool
) -> "Iterator[tuple[list[InputFile], Path | None, bool]]":
    """Yields the input files, the output path, and whether the output is standard output.

    An image for standard output is first written into a temporary folder, and copied to standard
    output when the restoration is done. The result of standard input goes to standard output
    unless `output` names a file.

    Raises:
        UsageError: The files and options do not allow streaming, or a stream is closed.
    """
    if STREAM in files and len(files) > 1:
        raise click.UsageError("- is standard input: give no other files with it")
    to_stdout = output == STREAM or (output is None and STREAM in files)
    if to_stdout and as_json:
        raise click.UsageError("standard output holds the image: with --json give -o a file")
    if STREAM in files and sys.stdin is None:
        raise click.UsageError("standard input is closed: give a file instead of -")
    if to_stdout and sys.stdout is None:
        raise click.UsageError("standard output is closed: give -o a file")
    from genprior.api.files.paths import InputFile, list_files, read_stream

    if STREAM in files:
        found = [InputFile(STREAM, data=read_stream(sys.stdin.buffer, "-"))]
    else:
        found = list_files(files, recursive)
    if not to_stdout:
        yield found, output, False
        return
    if len(found) != 1:
        raise click.UsageError(
            f"standard output holds one image, and there are {len(found)} inputs: give -o a folder"
        )
    with tempfile.TemporaryDirectory(prefix="genprior-") as folder:
        yield found, Path(folder), True
        written = (p for p in Path(folder).rglob("*") if p.is_file() and p.suffix != ".json")
        (image,) = written
        sys.stdout.buffer.write(image.read_bytes())
        sys.stdout.buffer.flush()
