"""Syntax of tasks and methods on the command line: NAME:SETTING=VALUE,... No torch.

The settings of a task are the options of the restoring command of that name. The same option
definitions parse them, so they have the same meaning and defaults. The tasks phase, gamma and
quantise have no command: their measurements are no photos, or simulated only. The settings of
deepinv:NAME are the arguments of the deepinv physics of that name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import click

from genprior.commands import options
from genprior.commands.prior_arguments import parse_value
from genprior.core.noise_text import DEFAULT_NOISE


@dataclass(frozen=True)
class TaskText:
    """Parsed task.

    Arguments:
        text: The task as it was typed.
        kind: Name of the restoring command, or "deepinv".
        noise: Noise level, in units of [0, 1], or the text of a law (`core.noise_text`).
        crop: Side of the centre crop in pixels, or None.
        settings: The other settings, by their argument names in `genprior.api.tasks`.
    """

    text: str
    kind: str
    noise: float | str
    crop: int | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class MethodText:
    """Parsed solver or baseline."""

    text: str
    name: str
    settings: dict[str, Any]


class Task(click.ParamType):
    """Task KIND:SETTING=VALUE,... such as inpaint:random=0.5 or superres:factor=4,noise=0.01."""

    name = "task"

    def convert(self, value: Any, param: Any, ctx: Any) -> TaskText:
        if isinstance(value, TaskText):
            return value
        kind, _, rest = value.partition(":")
        if kind not in COMMANDS:
            self.fail(f"{value!r}: choose one of {', '.join(COMMANDS)}", param, ctx)
        try:
            name, rest, foreign = _physics(rest) if kind == "deepinv" else ("", rest, {})
            given = COMMANDS[kind].make_context(kind, _as_options(kind, rest)).params
            if kind == "deblur":
                options.check_blur(given["gaussian"], given["motion"], given["kernel"])
            if kind == "hdr":
                options.check_exposure(given["pivot"], given["white"])
            if kind == "superres":
                options.check_filter(given["kernel"], given["std"], given["blur"])
        except click.UsageError as error:
            self.fail(f"{value!r}: {error.format_message()}", param, ctx)
        noise, crop = given.pop("noise"), given.pop("crop")
        if kind == "inpaint":
            given["invert"] = given.pop("invert_mask")
        if kind == "compressed-sensing":
            given["seed"] = given.pop("sensing_seed")
        if kind == "deepinv":
            if not name:
                self.fail(f"{value!r}: write deepinv:NAME,SETTING=VALUE,...", param, ctx)
            given |= {"name": name, "settings": foreign}
        return TaskText(value, kind, noise, crop, given)


class Methods(click.ParamType):
    """Comma-separated list of methods NAME[:SETTING=VALUE]..."""

    name = "list"

    def __init__(self, *known: Iterable[str]) -> None:
        self.tables = known

    @property
    def known(self) -> tuple[str, ...]:
        """All names; those of plug-ins are looked up here."""
        return tuple(name for table in self.tables for name in table)

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
            try:
                settings[setting] = parse_value(number)
            except ValueError as error:
                self.fail(f"{name}:{setting}: {error}: write its value as JSON", param, ctx)
        return MethodText(text, name, settings)


class Numbers(click.ParamType):
    """Comma-separated list of integers >= 0."""

    name = "list"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\d{1,99}(,\d{1,99})*", value):
            self.fail(f"{value!r}: write integers >= 0 with commas, such as 0,1,2", param, ctx)
        return tuple(dict.fromkeys(map(int, value.split(","))))


def _physics(text: str) -> tuple[str, str, dict[str, Any]]:
    """Returns the name of a deepinv physics, the text of noise and crop, and its arguments."""
    name, *parts = _parts(text)
    for part in parts:
        if "=" not in part:
            raise click.UsageError(f"{part!r}: write SETTING=VALUE")
    pairs = [part.partition("=")[::2] for part in parts]
    common = ",".join(f"{k}={v}" for k, v in pairs if k in ("noise", "crop"))
    try:
        settings = {k: parse_value(v) for k, v in pairs if k not in ("noise", "crop")}
    except ValueError as error:
        raise click.UsageError(f"{name}: {error}: write values as JSON") from None
    return name, common, settings


def _parts(text: str) -> list[str]:
    # A number after a comma belongs to the setting before it: motion=15,30.
    return re.split(r",(?=[A-Za-z][\w-]*(?:=|,|$))", text)


def _as_options(kind: str, text: str) -> list[str]:
    """Returns settings as command-line options: random=0.5 is --mask random=0.5."""
    words = []
    for part in filter(None, _parts(text)):
        name, equals, value = part.partition("=")
        if kind == "inpaint" and (name in ("random", "box") or part == "alpha"):
            words += ["--mask", part]
        else:
            words += [f"--{name}", value] if equals else [f"--{name}"]
    return words


def _noise_and_crop(kind: str) -> options.Decorator:
    noise = DEFAULT_NOISE[kind]
    presence = {"required": True} if noise == "auto" else {"default": noise}
    return options.combine(
        click.option("--noise", type=options.LevelOrLaw(0), **presence),
        click.option("--crop", type=click.IntRange(1)),
    )


def _command(kind: str, *settings: options.Decorator) -> click.Command:
    def body(**_: Any) -> None:
        """Is never called: the command only parses its options."""

    command = click.command(kind, add_help_option=False)
    return command(options.combine(*settings, _noise_and_crop(kind))(body))


COMMANDS = {
    "inpaint": _command("inpaint", options.mask),
    "deblur": _command("deblur", options.blur),
    "superres": _command("superres", options.superres),
    "denoise": _command("denoise"),
    "dejpeg": _command("dejpeg", options.jpeg),
    "colorize": _command("colorize"),
    "demosaic": _command("demosaic", options.mosaic),
    "compressed-sensing": _command("compressed-sensing", options.sensing),
    "hdr": _command("hdr", options.exposure),
    "phase": _command("phase", options.phase),
    "gamma": _command("gamma", options.gamma),
    "quantise": _command("quantise", options.levels),
    "deepinv": _command("deepinv"),
}
