"""Tasks and methods as they are typed: NAME:SETTING=VALUE,... No torch.

The settings of a task are the options of the restoring command of that name, with the same
meaning and defaults, since the same options read them; those of deepinv:NAME are the arguments
of deepinv's physics of that name.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import click

from genprior.commands import options
from genprior.registry import BASELINES, SOLVERS

NOISES = {"inpaint": 0.0, "deblur": 0.01, "superres": 0.01, "deepinv": 0.01}


@dataclass(frozen=True)
class TaskText:
    """A task as it was typed, read.

    Arguments:
        text: What was typed.
        kind: The restoring command.
        noise: Noise level.
        crop: Side of the centre crop, or None.
        settings: Its other settings, by the names that `genprior.api.tasks` has for them.
    """

    text: str
    kind: str
    noise: float
    crop: int | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class MethodText:
    """A solver or a baseline as it was typed, read."""

    text: str
    name: str
    settings: dict[str, Any]


class Task(click.ParamType):
    """KIND:SETTING=VALUE,... such as inpaint:random=0.5 or superres:factor=4,noise=0.01."""

    name = "task"

    def convert(self, value: Any, param: Any, ctx: Any) -> TaskText:
        if isinstance(value, TaskText):
            return value
        kind, _, rest = value.partition(":")
        if kind not in COMMANDS:
            self.fail(f"{value!r}: choose one of {', '.join(COMMANDS)}", param, ctx)
        try:
            name, rest, foreign = _physics(rest) if kind == "deepinv" else ("", rest, {})
            given = COMMANDS[kind].make_context(kind, _words(kind, rest)).params
            if kind == "deblur":
                options.check_blur(given["gaussian"], given["motion"], given["kernel"])
            if kind == "superres":
                options.check_filter(given["kernel"], given["std"])
        except click.UsageError as error:
            self.fail(f"{value!r}: {error.format_message()}", param, ctx)
        noise, crop = given.pop("noise"), given.pop("crop")
        if kind == "inpaint":
            given["invert"] = given.pop("invert_mask")
        if kind == "deepinv":
            if not name:
                self.fail(f"{value!r}: write deepinv:NAME,SETTING=VALUE,...", param, ctx)
            given |= {"name": name, "settings": foreign}
        return TaskText(value, kind, noise, crop, given)


class Methods(click.ParamType):
    """NAME[:SETTING=VALUE]..., separated by commas."""

    name = "list"

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[MethodText, ...]:
        if isinstance(value, tuple):
            return value
        texts = [text for text in value.split(",") if text]
        return tuple(self._method(text, param, ctx) for text in texts)

    def _method(self, text: str, param: Any, ctx: Any) -> MethodText:
        name, *parts = text.split(":")
        if name not in self.known:
            self.fail(f"{name!r}: choose among {', '.join(self.known)}", param, ctx)
        if name == "deepinv":
            if not parts or "=" in parts[0]:
                self.fail(f"{text!r}: write deepinv:NAME, such as deepinv:diffpir", param, ctx)
            name = f"{name}:{parts.pop(0)}"
        settings = {}
        for part in parts:
            setting, equals, number = part.partition("=")
            if not equals:
                self.fail(f"{text!r}: write NAME:SETTING=VALUE", param, ctx)
            settings[setting] = _value(number)
        return MethodText(text, name, settings)


class Numbers(click.ParamType):
    """Whole numbers >= 0, separated by commas."""

    name = "list"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\d+(,\d+)*", value):
            self.fail(f"{value!r}: write whole numbers with commas, 0,1,2", param, ctx)
        return tuple(dict.fromkeys(map(int, value.split(","))))


def _value(text: str) -> Any:
    """JSON, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _physics(text: str) -> tuple[str, str, dict[str, Any]]:
    """The name of a physics, its settings, and between them what any task has."""
    name, *parts = _parts(text)
    for part in parts:
        if "=" not in part:
            raise click.UsageError(f"{part!r}: write SETTING=VALUE")
    pairs = [part.partition("=")[::2] for part in parts]
    common = ",".join(f"{k}={v}" for k, v in pairs if k in ("noise", "crop"))
    return name, common, {k: _value(v) for k, v in pairs if k not in ("noise", "crop")}


def _parts(text: str) -> list[str]:
    # A number after a comma goes on with the setting before it: motion=15,30.
    return re.split(r",(?=[A-Za-z][\w-]*(?:=|,|$))", text)


def _words(kind: str, text: str) -> list[str]:
    """Settings as words of a command line: random=0.5 is --mask random=0.5."""
    words = []
    for part in filter(None, _parts(text)):
        name, equals, value = part.partition("=")
        if kind == "inpaint" and (name in ("random", "box") or part == "alpha"):
            words += ["--mask", part]
        else:
            words += [f"--{name}", value] if equals else [f"--{name}"]
    return words


def _measured(kind: str) -> options.Decorator:
    noise = NOISES.get(kind)
    needed = {"required": True} if noise is None else {"default": noise}
    return options.together(
        click.option("--noise", type=options.Level(0), **needed),
        click.option("--crop", type=click.IntRange(1)),
    )


def _command(kind: str, *settings: options.Decorator) -> click.Command:
    def body(**_: Any) -> None:
        """Never called: the command only reads its options."""

    wanted = click.command(kind, add_help_option=False)
    return wanted(options.together(*settings, _measured(kind))(body))


COMMANDS = {
    "inpaint": _command("inpaint", options.mask),
    "deblur": _command("deblur", options.blur),
    "superres": _command("superres", options.superres),
    "denoise": _command("denoise"),
    "deepinv": _command("deepinv"),
}
SOLVERS_KNOWN = ("auto", *SOLVERS)
BASELINES_KNOWN = tuple(BASELINES)
