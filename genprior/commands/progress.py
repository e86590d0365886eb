"""A progress bar on stderr that counts network evaluations."""

import sys

import click


class Progress:
    """MemoryPolicy where stderr is a terminal, unless it is to be quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.bar = quiet, None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, total: int) -> None:
        """Counts one evaluation; the first of a batch starts the bar anew."""
        if self.bar is None or done == 1:
            from tqdm import tqdm

            self.__exit__()
            hidden = True if self.quiet else None
            self.bar = tqdm(total=total, unit="NFE", disable=hidden, leave=False, file=sys.stderr)
        self.bar.total = total  # it grows where less is done at a time
        self.bar.update(1)

    def write(self, text: str, err: bool = False) -> None:
        """Prints a line, unless quiet, without breaking the bar."""
        if not self.quiet:
            self.clear()
            click.echo(text, err=err)

    def clear(self) -> None:
        """Makes room for a line."""
        if self.bar is not None:
            self.bar.clear()
