"""Progress bar of the commands."""

import sys
from typing import Any

import click

from genprior.commands.standard_streams import echo_error


class Progress:
    """Progress bar on standard error, shown only where that is a terminal.

    Arguments:
        quiet: Show no bar and print no lines.
        unit: What is counted; NFE are evaluations of the network.
        layout: Further arguments of `tqdm`.
    """

    def __init__(self, quiet: bool, unit: str = "NFE", **layout: str) -> None:
        self.quiet, self.layout = quiet, {"unit": unit, **layout}
        self.bar: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def start(self, total: float, done: float = 0) -> None:
        """Starts a new bar at `done` of `total`; the time left is estimated from there on."""
        from tqdm import tqdm

        self.__exit__()
        self.bar = tqdm(total=total, initial=done, disable=True if self.quiet else None,
                        leave=False, file=sys.stderr, **self.layout)

    def update(self, done: float, total: float, text: str = "") -> None:
        """Moves the bar to `done` of `total`; the first of a batch (`done` = 1) starts a new bar.

        Arguments:
            done: Position of the bar.
            total: Its end, which may change: a batch that is split takes more evaluations.
            text: Shown after the bar; "" keeps the last text.
        """
        if self.bar is None or done == 1:
            self.start(total)
        self.bar.total = total
        if text:
            self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(done - self.bar.n)

    def write(self, text: str, err: bool = False) -> None:
        """Prints a line above the bar, unless quiet; on standard error if `err`."""
        if not self.quiet:
            self.clear()
            (echo_error if err else click.echo)(text)

    def clear(self) -> None:
        """Erases the bar until its next update, so that a line can be printed."""
        if self.bar is not None:
            self.bar.clear()
