"""Configuration files: the options --config and --dump-config of a command."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import tomli_w

from genprior.commands.path_types import TypedPath

# Options that no configuration file holds.
NOT_CONFIGURABLE = ("config", "dump_config", "help")
Value = str | int | float | bool
# Larger files are no list of options. The file may be a pipe, such as <(command), that never ends.
MAX_BYTES = 2**20


def configurable(command: Callable) -> Callable:
    """Adds the options --config and --dump-config to a command."""

    @click.option("--config", type=TypedPath(), is_eager=True, callback=_read,
                  expose_value=False,
                  help="TOML file of options, one NAME = VALUE per line. Options on the command "
                       "line take precedence.")
    @click.option("--dump-config", is_flag=True,
                  help="Print all options in the format of --config and exit.")
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
    from genprior.core.records import parse_toml

    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        values = parse_toml(data.decode("utf-8-sig"), dict[str, Value | list[Value]])
    except OSError as error:
        raise click.UsageError(f"--config {file}: {error.strerror}", ctx) from error
    except ValueError as error:
        raise click.UsageError(f"--config {file}: not a TOML file: {error}", ctx) from error
    known = {_name(option): option.name for option in _options(ctx)}
    for name in values:
        if name.replace("_", "-") not in known:
            raise click.UsageError(
                f"--config {file}: {ctx.command.name} has no option {name!r}: choose among "
                f"{', '.join(sorted(known))}",
                ctx,
            )
    ctx.default_map = {
        known[name.replace("_", "-")]: _as_typed(value) for name, value in values.items()
    }


def _as_typed(value: Any) -> Any:
    """Returns a value as text, so that the option checks it as if it were typed."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _options(ctx: click.Context) -> list[click.Option]:
    return [
        param for param in ctx.command.params
        if isinstance(param, click.Option) and param.name not in NOT_CONFIGURABLE
    ]


def _name(option: click.Option) -> str:
    """Returns the long name of an option, without dashes."""
    return max(option.opts, key=len).lstrip("-")


def _dump(ctx: click.Context) -> str:
    lines = []
    for option in _options(ctx):
        value = ctx.params[option.name]
        if value is not None:
            text = getattr(option.type, "text", lambda value: value)(value)
            lines.append(_toml(str(text) if isinstance(text, Path) else text, option))
    return "".join(lines)


def _toml(value: Any, option: click.Option) -> str:
    """Returns the line of an option in ASCII, which every encoding of the output can hold."""
    line = tomli_w.dumps({_name(option): value})
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter(
            f"{value!r} is not valid Unicode, so a TOML file cannot hold it: rename the file in "
            f"UTF-8",
            param=option,
        ) from error
    return re.sub(r"[^\0-~]", lambda letter: f"\\U{ord(letter[0]):08X}", line)
