"""Option definitions that the commands share: one meaning of each everywhere. No torch."""

import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from genprior.api.files.save_options import SAVES, is_save
from genprior.commands.config import configurable
from genprior.commands.path_types import TypedPath
from genprior.io.limits import MAX_PIXELS
from genprior.registry import SOLVERS

EXTENSIONS = ("keep", "png", "jpg", "webp", "tif", "bmp", "npy")
Decorator = Callable[[Callable], Callable]


class Mask(click.ParamType):
    """`alpha`, `random=0.5`, `box=48x48` or the path of a mask file."""

    name = "mask"

    @staticmethod
    def text(mask: tuple[str, Any]) -> str:
        """A mask as it is typed."""
        kind, value = mask
        if kind == "box":
            return f"box={value[0]}x{value[1]}"
        return f"random={value}" if kind == "random" else str(value or kind)

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
        if not value or not Path(value).exists():
            self.fail(
                f"{value!r} is no file: give a mask file (white = fill in), a folder of masks, "
                f"alpha, random=0.5 or box=48x48",
                param,
                ctx,
            )
        return "file", Path(value)


class Level(click.FloatRange):
    """A noise level: a number or a fraction, 25/255."""

    name = "level"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, str) and value.count("/") == 1:
            above, below = (super(Level, self).convert(n, param, ctx) for n in value.split("/"))
            if not below:
                self.fail(f"{value!r} divides by zero", param, ctx)
            value = above / below
        return super().convert(value, param, ctx)


class LevelOrAuto(Level):
    """A noise level, or auto."""

    name = "level|auto"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | str:
        return value if value == "auto" else super().convert(value, param, ctx)


class Duration(click.ParamType):
    """A time: 90s, 20m or 2h; in minutes."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", value)
        if not match or not float(match[1]):
            self.fail(f"{value!r} is no time: write 90s, 20m or 2h", param, ctx)
        return float(match[1]) * {"s": 1 / 60, "m": 1.0, "h": 60.0}[match[2]]


class Size(click.ParamType):
    """HEIGHTxWIDTH in pixels."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", value)
        if not match:
            self.fail(f"{value!r} is not a size: write HEIGHTxWIDTH, such as 48x64", param, ctx)
        return int(match[1]), int(match[2])


class Motion(click.ParamType):
    """LENGTH,ANGLE of a motion blur, in pixels and degrees."""

    name = "length,angle"

    @staticmethod
    def text(motion: tuple[float, float]) -> str:
        """A motion as it is typed."""
        return f"{motion[0]},{motion[1]}"

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

    name = "list"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        wanted = tuple(dict.fromkeys(part for part in value.split(",") if part))
        for part in wanted:
            if not is_save(part):
                self.fail(f"{part!r} cannot be saved: choose among {', '.join(SAVES)} (any from "
                          f"q01 to q99)", param, ctx)
        return wanted


class Tile(click.ParamType):
    """auto, off or the side of a tile in pixels."""

    name = "auto|off|n"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | int:
        if value in ("auto", "off") or isinstance(value, int):
            return value
        if not re.fullmatch(r"\d+", value) or int(value) < 64:
            self.fail(f"{value!r}: write auto, off or a side of at least 64 pixels", param, ctx)
        return int(value)


class Device(click.ParamType):
    """auto, cpu, cuda, cuda:1 ... or mps."""

    name = "device"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            self.fail(f"{value!r} is no device: choose auto, cpu, cuda, cuda:1 or mps", param, ctx)
        return value


def check_blur(gaussian: object, motion: object, kernel: object) -> None:
    """Asks for one of the three."""
    if sum(part is not None for part in (gaussian, motion, kernel)) != 1:
        raise click.UsageError("say which blur: give one of --gaussian, --motion and --kernel")


def check_filter(kernel: str, std: float | None) -> None:
    """--std goes with one filter only."""
    if std is not None and kernel != "gaussian":
        raise click.UsageError("--std is the width of --filter gaussian: add that, or leave it")


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order of the help."""
    return lambda command: reduce(lambda f, option: option(f), reversed(options), command)


seed = click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
                    help="Seed of all that is random.")
steps = click.option("--steps", type=click.IntRange(1),
                     help="Steps of the solver; `genprior solvers` says what they cost. What "
                          "denoises by default has none.  [default: the solver's]")
overwrite = click.option("--overwrite", is_flag=True, help="Replace files that exist.")
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress bar and no messages.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
device = click.option("--device", type=Device(), default="auto", show_default=True,
                      help="auto, cpu, cuda, cuda:1 or mps.")
prior = click.option("--prior", default="ddpm", show_default=True,
                     help="Name of a prior (see: genprior priors list), a checkpoint folder, or "
                          "texture.")
exemplar = click.option("--exemplar", type=TypedPath(), metavar="IMG",
                        help="Picture that --prior texture is estimated from.")
resize = click.option("--resize", type=click.IntRange(1), metavar="SIDE",
                      help="Make the shorter side of every image so long first, pixels.")
max_pixels = click.option("--max-pixels", type=click.IntRange(1), default=MAX_PIXELS,
                          show_default=True,
                          help="Refuse larger pictures, masks too, before they are decoded.")
output_file = click.option("-o", "--output", required=True, type=TypedPath(),
                           help="File to write.")


def restoring(noise: float | str) -> Decorator:
    """Options of a restoring command, with its default noise level."""
    return together(
        click.argument("files", nargs=-1, required=True, type=TypedPath()),
        click.option("-o", "--output", type=TypedPath(),
                     help="File to write, a folder, or - for standard output.  [default: "
                          "STEM.genprior.EXT beside the input]"),
        prior,
        exemplar,
        click.option("--noise", type=LevelOrAuto(0), default=noise, show_default=True,
                     help="Noise level in the measurement, in units of [0, 1]; a number or "
                          "25/255. auto: the level of white noise that the prior, a denoiser, "
                          "finds most likely."),
        click.option("--solver", type=click.Choice(("auto", *SOLVERS)), default="auto",
                     show_default=True, help="How to restore; auto: by task and samples."),
        steps,
        click.option("--samples", type=click.IntRange(1), default=1, show_default=True,
                     help="Posterior samples per image; their mean is the picture."),
        click.option("--save", type=Saves(), default="",
                     help=f"Also save: {','.join(SAVES)}; the last are quantiles (q01 to q99)."),
        seed,
        device,
        click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]),
                     default="float32", show_default=True, help="Precision of the network."),
        click.option("--tile", type=Tile(), default="auto", show_default=True,
                     help="Side of the tiles in which the network sees a picture; auto: large "
                          "pictures only, and of noise-free inpainting only what is around the "
                          "holes; off: the whole."),
        click.option("--degrade", is_flag=True,
                     help="The input is clean: apply the operator and --noise first, then print "
                          "PSNR and SSIM against it."),
        click.option("--recursive", is_flag=True,
                     help="Look into the folders of folders; under -o they are made anew."),
        click.option("--ext", type=click.Choice(EXTENSIONS), default="keep", show_default=True,
                     help="Format of the results; keep: that of each input."),
        max_pixels,
        as_json,
        quiet,
        overwrite,
        click.option("--skip-existing", is_flag=True,
                     help="Leave out files whose result is there, whole and of the same input."),
        configurable,
    )


measuring = together(
    click.argument("file", type=TypedPath()),
    output_file,
    click.option("--noise", type=Level(0), default=0.0, show_default=True,
                 help="Noise to add, in units of [0, 1]."),
    seed,
    max_pixels,
    quiet,
    overwrite,
)

mask = together(
    click.option("--mask", type=Mask(), default="alpha", show_default=True,
                 help="What to fill in: a mask file (white = fill in), a folder of masks that "
                      "have the names of the files, alpha (transparent pixels), random=SHARE or "
                      "box=HEIGHTxWIDTH."),
    click.option("--invert-mask", is_flag=True, help="Black = fill in."),
)

blur = together(
    click.option("--gaussian", type=click.FloatRange(0, min_open=True),
                 help="Standard deviation of a Gaussian blur, pixels."),
    click.option("--motion", type=Motion(), help="Motion blur: length (pixels), angle (degrees)."),
    click.option("--kernel", type=TypedPath(), help="Image of the blur kernel."),
    click.option("--boundary", type=click.Choice(["valid", "reflect", "replicate", "circular"]),
                 default="valid", show_default=True,
                 help="What is beyond the border; valid assumes nothing."),
)

superres = together(
    click.option("--factor", type=click.IntRange(2), default=2, show_default=True),
    click.option("--filter", "kernel", type=click.Choice(["bicubic", "box", "gaussian"]),
                 default="bicubic", show_default=True, help="Filter before decimation."),
    click.option("--std", type=click.FloatRange(0, min_open=True),
                 help="Standard deviation of the gaussian filter, pixels of the large image."),
    click.option("--boundary", type=click.Choice(["symmetric", "reflect", "circular"]),
                 default="symmetric", show_default=True, help="What is beyond the border."),
)
