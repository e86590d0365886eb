"""What was typed."""

from pathlib import Path
from typing import Any

import click


class TypedPath(click.Path):
    """A path that is not empty: an unset variable of the shell would be the current folder."""

    name = "path"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "":
            self.fail("it is empty: give a name", param, ctx)
        return super().convert(value, param, ctx)


def typed_files() -> list[Path]:
    """Files that the command was given to read, beside the pictures that it restores."""
    params = click.get_current_context().params
    values = [
        each
        for name, value in params.items() if name not in ("output", "files")
        for each in (value if isinstance(value, tuple) else (value,))
    ]
    paths = [value for value in values if isinstance(value, Path)]
    inside = [file for path in paths if path.is_dir() for file in path.rglob("*")]
    return [path for path in (*paths, *inside) if path.is_file()]
