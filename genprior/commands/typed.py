"""What was typed."""

from pathlib import Path

import click


def typed_files() -> list[Path]:
    """Files that the command was given to read."""
    params = click.get_current_context().params
    values = [
        each
        for name, value in params.items() if name != "output"
        for each in (value if isinstance(value, tuple) else (value,))
    ]
    return [value for value in values if isinstance(value, Path) and value.is_file()]
