"""Parsing of option values, and their text."""

from typing import get_args

import click
import pytest
from click.testing import CliRunner, Result

from genprior.commands import options
from genprior.inverse.base import Quality


def convert(kind: click.ParamType, text: str) -> object:
    return kind.convert(text, None, None)


@pytest.mark.parametrize("text", ["alpha", "random=0.5", "box=48x64", __file__])
def test_a_mask_is_read_and_written(text: str) -> None:
    mask = convert(options.Mask(), text)
    assert options.Mask.text(mask) == text
    assert convert(options.Mask(), mask) == mask


def test_values() -> None:
    assert convert(options.Mask(), "random=0.5") == ("random", 0.5)
    assert convert(options.Mask(), "box=48x64") == ("box", (48, 64))
    assert convert(options.Size(), "7x9") == (7, 9)
    assert convert(options.Motion(), "9,-45.5") == (9.0, -45.5)
    assert convert(options.Saves(), "std,panel") == ("std", "panel")
    assert convert(options.Saves(), "") == ()
    assert convert(options.Device(), "cuda:1") == "cuda:1"
    assert convert(options.Steps(), "7") == 7 and convert(options.Steps(), "auto") == "auto"


@pytest.mark.parametrize(
    "kind, text, message",
    [
        (options.Mask(), "random=1", "share of missing pixels must be between 0 and 1"),
        (options.Mask(), "random=half", "share of missing pixels must be between 0 and 1"),
        (options.Mask(), "random=nan", "share of missing pixels must be between 0 and 1"),
        (options.Mask(), "random=", "'random=' is not a file: give a mask file .white = fill in."),
        (options.Mask(), "box=0x3", "'0x3' is not a size: write HEIGHTxWIDTH, such as 48x64"),
        (options.Size(), "48", "'48' is not a size"),
        (options.Size(), f"{'9' * 5000}x1", "is not a size"),
        (options.Motion(), "9", "'9': write LENGTH,ANGLE in pixels and degrees"),
        (options.Saves(), "mean,sdt", "'sdt' cannot be saved: choose among mean, std, samples"),
        (options.Steps(), "0", "0 is not in the range 1<=x<=1000000"),
        (options.Steps(), "few", "'few' is not a valid integer"),
        (options.Device(), "cuda:x", "'cuda:x' is not a device: choose auto, cpu, cuda, cuda:1"),
    ],
)
def test_errors(kind: click.ParamType, text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        convert(kind, text)


def parsed(task: str, *arguments: str) -> Result:
    @click.command()
    @options.restoring(task)
    def command(**given: object) -> None:
        click.echo(given["noise"])

    return CliRunner().invoke(command, arguments)


def test_the_default_noise_is_the_commands() -> None:
    assert parsed("deblur", "a.png").stdout == "0.01\n"
    assert parsed("deblur", "a.png", "--noise", "0").stdout == "0.0\n"
    assert "default: 0.01" in " ".join(parsed("deblur", "--help").stdout.split())
    assert parsed("denoise", "a.png").stdout == "auto\n"
    assert parsed("deblur", "a.png", "--noise", "auto").stdout == "auto\n"


def test_the_qualities_are_those_of_python() -> None:
    @click.command()
    @options.quality
    @options.steps
    def command(quality: str, steps: int | str) -> None:
        click.echo(f"{quality} {steps}")

    (choice,) = (p.type for p in command.params if p.name == "quality")
    assert tuple(choice.choices) == get_args(Quality)
    assert CliRunner().invoke(command, []).stdout == "default auto\n"
    assert CliRunner().invoke(command, ["--quality", "best", "--steps", "3"]).stdout == "best 3\n"
