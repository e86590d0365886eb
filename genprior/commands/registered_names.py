"""Choice of a registered name: plug-ins are looked up when a value is typed, not at import."""

from collections.abc import Callable, Sequence

import click


class Names(click.Choice):
    """Choice among names that are listed when they are needed.

    Arguments:
        names: Returns them.
    """

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self._names = names
        self.case_sensitive = True

    @property
    def choices(self) -> Sequence[str]:  # type: ignore[override]
        """All names, in order."""
        return self._names()
