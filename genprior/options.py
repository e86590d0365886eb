"""Option definitions that the commands share: one meaning of each everywhere. No torch."""

import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from genprior.registry import SOLVERS

SAVES = ("mean", "std", "samples", "panel")
Decorator = Callable[[Callable], Callable]


class Mask(click.ParamType):
    """`alpha`, `random=0.5`, `box=48x48` or the path of a mask file."""

    name = "mask"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        if value == "alpha":
            return "alpha", None
        kind, _, number = value.partition("=")
        if kind == "random" and number:
            try:
                missing = float(number)
            except ValueError:
                missing = -1.0
            if not 0 < missing < 1:
                self.fail(f"{value!r}: the missing share must be between 0 and 1", param, ctx)
            return "random", missing
        if kind == "box" and number:
            return "box", Size().convert(number, param, ctx)
        if not Path(value).is_file():
            self.fail(
                f"{value!r} is no file: give a mask file (white = fill in), alpha, "
                f"random=0.5 or box=48x48",
                param,
                ctx,
            )
        return "file", Path(value)


class Size(click.ParamType):
    """HEIGHTxWIDTH in pixels."""

    name = "HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", value)
        if not match:
            self.fail(f"{value!r} is not a size: write HEIGHTxWIDTH, such as 48x64", param, ctx)
        return int(match[1]), int(match[2])


class Motion(click.ParamType):
    """LENGTH,ANGLE of a motion blur, in pixels and degrees."""

    name = "LENGTH,ANGLE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        try:
            length, angle = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r}: write LENGTH,ANGLE in pixels and degrees", param, ctx)
        return length, angle


class Saves(click.ParamType):
    """Comma-separated list of what to save besides the picture."""

    name = ",".join(SAVES)

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        wanted = tuple(part for part in value.split(",") if part)
        for part in wanted:
            if part not in SAVES:
                self.fail(f"{part!r} cannot be saved: choose among {', '.join(SAVES)}", param, ctx)
        return wanted


def _all(*options: Decorator) -> Decorator:
    return lambda command: reduce(lambda f, option: option(f), reversed(options), command)


seed = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
steps = click.option("--steps", type=click.IntRange(1), help="Network evaluations.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace files that exist.")
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress bar and no messages.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."
)
prior = click.option(
    "--prior",
    default="ddpm",
    show_default=True,
    help="Name of a prior (see: genprior priors list) or a checkpoint folder.",
)
noise = click.option(
    "--noise",
    type=click.FloatRange(0),
    default=None,
    help="Noise level in the measurement, in units of [0, 1] (25/255 is 0.098).",
)
output = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write, or a folder for several. Default: STEM.genprior.EXT beside the input.",
)
files = click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))

restoring = _all(
    files,
    output,
    prior,
    noise,
    click.option(
        "--solver",
        default="auto",
        show_default=True,
        help=f"auto, {', '.join(SOLVERS)}.",
    ),
    steps,
    click.option("--samples", type=click.IntRange(1), default=1, show_default=True,
                 help="Posterior samples per image."),
    click.option("--save", type=Saves(), default="", help="Also save: mean,std,samples,panel."),
    seed,
    device,
    click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]),
                 default="float32", show_default=True, help="Precision of the network."),
    click.option("--degrade", is_flag=True,
                 help="The input is clean: apply the operator and --noise first, then print "
                      "PSNR and SSIM against it."),
    as_json,
    quiet,
    overwrite,
)

mask = _all(
    click.option("--mask", type=Mask(), default="alpha", show_default=True,
                 help="What to fill in: a mask file (white = fill in), alpha (transparent "
                      "pixels), random=SHARE or box=HEIGHTxWIDTH."),
    click.option("--invert-mask", is_flag=True, help="Black = fill in."),
)

blur = _all(
    click.option("--gaussian", type=click.FloatRange(0, min_open=True),
                 help="Standard deviation of a Gaussian blur, pixels."),
    click.option("--motion", type=Motion(), help="Motion blur: length (pixels), angle (degrees)."),
    click.option("--kernel", type=click.Path(path_type=Path), help="Image of the blur kernel."),
    click.option("--boundary", type=click.Choice(["valid", "reflect", "replicate", "circular"]),
                 default="valid", show_default=True,
                 help="What is beyond the border; valid assumes nothing."),
)

superres = _all(
    click.option("--factor", type=click.IntRange(2), default=2, show_default=True),
    click.option("--filter", "kernel", type=click.Choice(["bicubic", "box", "gaussian"]),
                 default="bicubic", show_default=True, help="Filter before decimation."),
    click.option("--std", type=click.FloatRange(0, min_open=True),
                 help="Standard deviation of the gaussian filter, pixels of the large image."),
    click.option("--boundary", type=click.Choice(["symmetric", "reflect", "circular"]),
                 default="symmetric", show_default=True, help="What is beyond the border."),
)
