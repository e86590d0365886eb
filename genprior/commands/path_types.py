"""Paths on the command line."""

from pathlib import Path
from typing import Any

import click


class TypedPath(click.Path):
    """Path that is not empty: an unset shell variable must not mean the current folder."""

    name = "path"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if value == "":
            self.fail("the path is empty: give a name", param, ctx)
        return super().convert(value, param, ctx)


def typed_files() -> list[Path]:
    """Returns the files that the command reads besides the images to restore.

    These are the files among the options, such as a mask or a kernel, and all files in the
    folders among them.
    """
    params = click.get_current_context().params
    values = [
        each
        for name, value in params.items() if name not in ("output", "files")
        for each in (value if isinstance(value, tuple) else (value,))
    ]
    paths = [value for value in values if isinstance(value, Path)]
    inside = [file for path in paths if path.is_dir() for file in path.rglob("*")]
    return [path for path in (*paths, *inside) if path.is_file()]
