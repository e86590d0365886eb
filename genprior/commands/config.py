"""Options from a file: --config run.toml, and such a file of the options in force."""

import functools
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from genprior.commands.path_types import TypedPath

# What belongs to one call and not to a way of working.
PASSING = ("config", "dump_config", "help")


def configurable(command: Callable) -> Callable:
    """Gives a command --config and --dump-config."""

    @click.option("--config", type=TypedPath(), is_eager=True, callback=_read,
                  expose_value=False,
                  help="TOML file of options, name = value; those that are typed win.")
    @click.option("--dump-config", is_flag=True,
                  help="Print all options as such a file, and do nothing.")
    @functools.wraps(command)
    def configured(*arguments: Any, dump_config: bool, **options: Any) -> Any:
        if dump_config:
            click.echo(_dump(click.get_current_context()), nl=False)
            return None
        return command(*arguments, **options)

    return configured


def _read(ctx: click.Context, param: click.Parameter, file: Path | None) -> None:
    if file is None:
        return
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise click.UsageError(f"--config {file}: {error.strerror}", ctx) from error
    except ValueError as error:
        raise click.UsageError(f"--config {file}: not TOML: {error}", ctx) from error
    known = {_name(option): option.name for option in _options(ctx)}
    for name in values:
        if name.replace("_", "-") not in known:
            raise click.UsageError(
                f"--config {file}: {ctx.command.name} has no option {name!r}: choose among "
                f"{', '.join(sorted(known))}",
                ctx,
            )
    ctx.default_map = {
        known[name.replace("_", "-")]: _typed(value) for name, value in values.items()
    }


def _typed(value: Any) -> Any:
    """A value as one would type it, so that it is checked as such."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _options(ctx: click.Context) -> list[click.Option]:
    return [
        param for param in ctx.command.params
        if isinstance(param, click.Option) and param.name not in PASSING
    ]


def _name(option: click.Option) -> str:
    """Its long name, without dashes."""
    return max(option.opts, key=len).lstrip("-")


def _dump(ctx: click.Context) -> str:
    lines = []
    for option in _options(ctx):
        value = ctx.params[option.name]
        if value is not None:
            text = getattr(option.type, "text", lambda value: value)(value)
            text = str(text) if isinstance(text, Path) else text
            lines.append(f"{_name(option)} = {_toml(text, option)}\n")
    return "".join(lines)


def _toml(value: Any, option: click.Option) -> str:
    """A value in letters that every encoding has."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter(
            f"{value!r} is no text, which a TOML file cannot hold: give it a name in UTF-8",
            param=option,
        ) from error
    return re.sub(r"[^\0-~]", lambda letter: f"\\U{ord(letter[0]):08X}", text)
