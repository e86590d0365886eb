"""Shared option definitions of the commands, so that an option means the same everywhere.

Imports no torch.
"""

import functools
import math
import os
import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from genprior.api.files.save_options import SAVES, is_save
from genprior.commands.config import configurable
from genprior.commands.path_types import TypedPath
from genprior.commands.registered_names import Names
from genprior.core.errors import SettingError
from genprior.core.noise_text import DEFAULT_NOISE, SYNTAX, parse_noise
from genprior.io.limits import MAX_PIXELS, MAX_SAMPLES, MAX_SIDE, MAX_STEPS
from genprior.registry import FORMATS, SOLVERS

EXTENSIONS = ("keep", "png", "jpg", "webp", "tif", "bmp", "npy")
Decorator = Callable[[Callable], Callable]


class Mask(click.ParamType):
    """Mask: `alpha`, `random=0.5`, `box=48x48`, or the path of a mask file or folder."""

    name = "mask"

    @staticmethod
    def text(mask: tuple[str, Any]) -> str:
        """Returns a mask in the syntax of the command line."""
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
                self.fail(
                    f"{value!r}: the share of missing pixels must be between 0 and 1", param, ctx
                )
            return "random", missing
        if kind == "box" and number:
            return "box", Size().convert(number, param, ctx)
        if not value or not Path(value).exists():
            self.fail(
                f"{value!r} is not a file: give a mask file (white = fill in), a folder of masks, "
                f"alpha, random=0.5 or box=48x48",
                param,
                ctx,
            )
        return "file", Path(value)


class Level(click.FloatRange):
    """Noise level: a number, or a fraction such as 25/255."""

    name = "level"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, str) and value.count("/") == 1:
            numerator, denominator = (
                super(Level, self).convert(n, param, ctx) for n in value.split("/")
            )
            if not denominator:
                self.fail(f"{value!r} divides by zero", param, ctx)
            value = numerator / denominator
        level = super().convert(value, param, ctx)
        if not math.isfinite(level):
            self.fail(f"{level} is not a finite number", param, ctx)
        return level


class JPEGQuality(click.IntRange):
    """Quality of a JPEG: 1 to 100, or auto."""

    name = "n|auto"

    def __init__(self) -> None:
        super().__init__(1, 100)

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        return value if value == "auto" else super().convert(value, param, ctx)


class WhiteLevel(click.FloatRange):
    """Value from which highlights count as clipped: a number in (0, 1], or auto."""

    name = "level|auto"

    def __init__(self) -> None:
        super().__init__(0, 1, min_open=True)

    def convert(self, value: Any, param: Any, ctx: Any) -> float | str:
        return value if value == "auto" else super().convert(value, param, ctx)


class LevelOrLaw(Level):
    """Noise level, or a law of the noise such as poisson=30."""

    name = "level|law"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | str:
        if not (isinstance(value, str) and "=" in value):
            return super().convert(value, param, ctx)
        try:
            parse_noise(value)
        except SettingError as error:
            self.fail(str(error), param, ctx)
        return value


class LevelOrAuto(LevelOrLaw):
    """Noise level, a law of the noise, or auto."""

    name = "level|law|auto"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | str:
        return value if value == "auto" else super().convert(value, param, ctx)


class Duration(click.ParamType):
    """Duration such as 90s, 20m or 2h, converted to minutes."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", value)
        if not match or not float(match[1]):
            self.fail(f"{value!r} is not a duration: write 90s, 20m or 2h", param, ctx)
        return float(match[1]) * {"s": 1 / 60, "m": 1.0, "h": 60.0}[match[2]]


class Adapt(click.ParamType):
    """Time such as 60s, converted to seconds (a float), or a number of steps (an integer)."""

    name = "time or steps"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | int:
        if isinstance(value, float):
            return value
        if re.fullmatch(r"[1-9]\d{0,6}", str(value)):
            return int(value)
        return 60 * Duration().convert(str(value), param, ctx)


class Size(click.ParamType):
    """Image size HEIGHTxWIDTH, in pixels."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", value)
        if not match:
            self.fail(f"{value!r} is not a size: write HEIGHTxWIDTH, such as 48x64", param, ctx)
        return int(match[1]), int(match[2])


class OutputSize(click.ParamType):
    """Size of an output image WIDTHxHEIGHT, in pixels, converted to (height, width)."""

    name = "widthxheight"

    @staticmethod
    def text(size: tuple[int, int]) -> str:
        """Returns a size in the syntax of the command line."""
        return f"{size[1]}x{size[0]}"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,6})x([1-9]\d{0,6})", value)
        if not match or max(int(match[1]), int(match[2])) > MAX_SIDE:
            self.fail(f"{value!r} is not a size: write WIDTHxHEIGHT, such as 640x480", param, ctx)
        return int(match[2]), int(match[1])


class Factor(click.FloatRange):
    """Ratio of two sides: a number above 1, an int if it is whole."""

    name = "factor"

    def __init__(self) -> None:
        super().__init__(1, MAX_SIDE, min_open=True)

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        factor = super().convert(value, param, ctx)
        if math.isnan(factor):
            self.fail(f"{value!r} is not a number above 1", param, ctx)
        return int(factor) if float(factor).is_integer() else factor


class Motion(click.ParamType):
    """Motion blur LENGTH,ANGLE, in pixels and degrees."""

    name = "length,angle"

    @staticmethod
    def text(motion: tuple[float, float]) -> str:
        """Returns a motion blur in the syntax of the command line."""
        return f"{motion[0]},{motion[1]}"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        try:
            length, angle = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r}: write LENGTH,ANGLE in pixels and degrees", param, ctx)
        return length, angle


class GaussianOrAuto(click.FloatRange):
    """Standard deviation of a Gaussian in pixels, or auto."""

    name = "std|auto"

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: Any, ctx: Any) -> float | str:
        return value if value == "auto" else super().convert(value, param, ctx)


class MotionOrAuto(Motion):
    """Motion blur LENGTH,ANGLE, or auto."""

    name = "length,angle|auto"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float] | str:
        return value if value == "auto" else super().convert(value, param, ctx)


class KernelOrAuto(TypedPath):
    """Path of a kernel; or auto or auto=SIZE, which is the largest size in pixels."""

    name = "path|auto[=size]"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str) or not re.fullmatch(r"auto(=.*)?", value):
            return super().convert(value, param, ctx)
        if not re.fullmatch(r"auto(=\d{1,4})?", value):
            self.fail(f"{value!r}: write auto, or auto=SIZE such as auto=25", param, ctx)
        return value


class Saves(click.ParamType):
    """Comma-separated list of what to save besides the restored image."""

    name = "list"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        parts = tuple(dict.fromkeys(part for part in value.split(",") if part))
        for part in parts:
            if not is_save(part):
                self.fail(f"{part!r} cannot be saved: choose among {', '.join(SAVES)} (any from "
                          f"q01 to q99)", param, ctx)
        return parts


class Tile(click.ParamType):
    """Tile size: auto, off or the side of a tile in pixels, at least 64."""

    name = "auto|off|n"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | int:
        if value in ("auto", "off") or isinstance(value, int):
            return value
        if not re.fullmatch(r"\d+", value) or int(value) < 64:
            self.fail(f"{value!r}: write auto, off or a side of at least 64 pixels", param, ctx)
        return int(value)


class Device(click.ParamType):
    """Device: auto, cpu, cuda, cuda:1 ... or mps."""

    name = "device"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            self.fail(
                f"{value!r} is not a device: choose auto, cpu, cuda, cuda:1 or mps", param, ctx
            )
        return value


class Steps(click.ParamType):
    """Number of steps, or auto."""

    name = "n|auto"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        if value == "auto":
            return "auto"
        return click.IntRange(1, MAX_STEPS).convert(value, param, ctx)


def check_blur(gaussian: object, motion: object, kernel: object) -> None:
    """Raises a usage error unless exactly one of the three kinds of blur is given."""
    if sum(part is not None for part in (gaussian, motion, kernel)) != 1:
        raise click.UsageError(
            "a blur needs exactly one of --gaussian, --motion and --kernel; --kernel auto "
            "estimates an unknown one"
        )


def check_filter(kernel: str, std: float | None, blur: object = None) -> None:
    """Raises a usage error if --std is given without --filter gaussian, or a filter twice."""
    if blur is not None and (kernel != "bicubic" or std is not None):
        raise click.UsageError("--kernel replaces --filter and --std: give one of them")
    if std is not None and kernel != "gaussian":
        raise click.UsageError(
            "--std is the width of --filter gaussian: add --filter gaussian, or leave --std out"
        )


def check_exposure(pivot: float, white: float | str) -> None:
    """Raises a usage error if the white level is not above the value that does not change."""
    if white != "auto" and float(white) <= pivot:
        raise click.UsageError(f"--white {white} must be above --pivot {pivot}")


def combine(*options: Decorator) -> Decorator:
    """Returns one decorator for several options, which the help lists in this order."""
    return lambda command: reduce(lambda f, option: option(f), reversed(options), command)


seed = click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
                    help="Seed of the random numbers.")
steps = click.option("--steps", type=Steps(), default="auto", show_default=True,
                     help="Steps of the solver; more take longer (see: genprior solvers). auto: "
                          "as many as the measurement takes, see --quality. Not for solvers "
                          "without steps, such as posterior-mean: if --solver auto chooses such "
                          "a solver, --steps is ignored with a warning.")
quality = click.option("--quality", type=click.Choice(["fast", "default", "best"]),
                       default="default", show_default=True,
                       help="With --steps auto and the solvers hqs and posterior-mean, which are "
                            "those of --solver auto for one image: fast takes few evaluations "
                            "of the network, default the fewest with the PSNR of many to 0.05 "
                            "dB, best as many as improve the image. With other solvers it is "
                            "ignored with a warning: --steps sets theirs.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace existing output files.")
quiet = click.option("-q", "--quiet", is_flag=True,
                     help="Show no progress bar and no status messages.")
as_json = click.option("--json", "as_json", is_flag=True,
                       help="Print the results as JSON on standard output.")
device = click.option("--device", type=Device(), default="auto", show_default=True,
                      help="Device of the computation: auto, cpu, cuda, cuda:1 or mps.")
exemplar = click.option("--exemplar", type=TypedPath(), metavar="IMG",
                        help="Image from which --prior texture is estimated.")
resize = click.option("--resize", type=click.IntRange(1, MAX_SIDE), metavar="SIDE",
                      help="Resize every image first, so that its shorter side has SIDE pixels.")
max_pixels = click.option("--max-pixels", type=click.IntRange(1), default=MAX_PIXELS,
                          show_default=True,
                          help="Refuse images and masks with more pixels, before decoding them.")
output_file = click.option("-o", "--output", required=True, type=TypedPath(),
                           help="Image file to write.")


format_and_offline = combine(
    click.option("--format", "prior_format", type=click.Choice(FORMATS),
                 help="Format of the prior, if its file does not show it."),
    click.option("--offline", is_flag=True,
                 help="Download nothing: hf:ORG/NAME must be in the local cache."),
)


PRIOR_SETTINGS = (
    "prompt", "negative_prompt", "guidance", "lora", "lora_scale", "control", "control_image",
    "control_scale",
)
of_latent_diffusion = combine(
    click.option("--prompt", metavar="TEXT",
                 help="What the image shows, for a prior of text-conditional latent diffusion "
                      "(extra prompt).  [default: nothing]"),
    click.option("--negative-prompt", metavar="TEXT",
                 help="What the image does not show; needs --guidance.  [default: nothing]"),
    click.option("--guidance", type=click.FloatRange(0),
                 help="Guidance scale: how strongly --prompt counts.  [default: 1, no guidance]"),
    click.option("--lora", type=TypedPath(), metavar="FILE",
                 help="LoRA file for the prior of latent diffusion (extra lora)."),
    click.option("--lora-scale", type=click.FloatRange(0),
                 help="Factor of the changes of --lora.  [default: 1]"),
    click.option("--control", type=TypedPath(), metavar="FOLDER",
                 help="ControlNet for the prior of latent diffusion; needs --control-image."),
    click.option("--control-image", type=TypedPath(), metavar="FILE",
                 help="Image for --control, such as edges or depths, of the size of the result."),
    click.option("--control-scale", type=click.FloatRange(0),
                 help="Factor of the influence of --control.  [default: 1]"),
)


def located(where: str, prior_format: str | None, offline: bool) -> str:
    """Returns a prior with its format in front, and switches downloads off if required."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return f"{prior_format}:{where}" if prior_format else where


def prior_settings(command: Callable) -> Callable:
    """Adds the options of latent diffusion: the command gets those given as `prior_settings`.

    They are arguments of `load_prior`.
    """

    @of_latent_diffusion
    @functools.wraps(command)
    def with_settings(*arguments: Any, **others: Any) -> Any:
        given = {name: others.pop(name) for name in PRIOR_SETTINGS}
        settings = {name: str(value) if isinstance(value, Path) else value
                    for name, value in given.items() if value is not None}
        return command(*arguments, prior_settings=settings, **others)

    return with_settings


def prior(command: Callable) -> Callable:
    """Adds the options of a prior: the command gets `prior` and `prior_settings`.

    `prior` holds --prior and --format.
    """

    @click.option("--prior", default="ddpm", show_default=True,
                  help="Name of a prior (see: genprior priors list), checkpoint folder, "
                       "diffusers folder, file of weights (.pt, .pth, .safetensors), "
                       "hf:ORG/NAME[@REVISION], or texture.")
    @format_and_offline
    @prior_settings
    @functools.wraps(command)
    def with_prior(
        *arguments: Any, prior: str, prior_format: str | None, offline: bool, **others: Any
    ) -> Any:
        return command(*arguments, prior=located(prior, prior_format, offline), **others)

    return with_prior


dtype = click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
                     default="auto", show_default=True,
                     help="Precision of the network. auto: float32. bfloat16 and float16 are "
                          "faster on a GPU, but slower on a CPU without instructions for them.")


def restoring(task: str) -> Decorator:
    """Returns the options of a restoring command, with the default noise level of its task."""
    return combine(
        click.argument("files", nargs=-1, required=True, type=TypedPath()),
        click.option("-o", "--output", type=TypedPath(),
                     help="File or folder to write, or - for standard output.  [default: "
                          "STEM.genprior.EXT beside the input]"),
        prior,
        exemplar,
        click.option("--noise", type=LevelOrAuto(0), default=DEFAULT_NOISE[task],
                     show_default=True,
                     help="Standard deviation of the noise in the input, in units of [0, 1]: a "
                          "number, or a fraction such as 25/255. auto: estimate the level of "
                          "white noise with the prior, which must be a denoiser. Or its law: "
                          f"{SYNTAX}, see the documentation on noise."),
        click.option("--solver", type=Names(lambda: ("auto", *SOLVERS)), default="auto",
                     show_default=True,
                     help="Solver (see: genprior solvers). auto: chosen for the task, the prior "
                          "and the number of samples."),
        steps,
        quality,
        click.option("--samples", type=click.IntRange(1, MAX_SAMPLES), default=1,
                     show_default=True,
                     help="Posterior samples per image; the restored image is their mean."),
        click.option("--save", type=Saves(), default="",
                     help=f"Further images to save, with commas: {','.join(SAVES)}. q05 and q95 "
                          "are quantiles; any from q01 to q99 can be saved. lower and upper are "
                          "the ends of calibrated intervals. All but panel need --samples 2 or "
                          "more."),
        click.option("--calibration", type=TypedPath(), metavar="FILE",
                     help="File of genprior calibrate, for intervals with a promised coverage: "
                          "add --save lower,upper and the --samples that were calibrated."),
        seed,
        device,
        dtype,
        click.option("--tile", type=Tile(), default="auto", show_default=True,
                     help="Evaluate the network on tiles with a side of N pixels, N >= 64, to "
                          "save memory. auto: tiles for large images only; noise-free inpainting "
                          "evaluates only windows around the holes. off: the whole image."),
        click.option("--degrade", is_flag=True,
                     help="The input is a clean image: apply the operator and add noise first, "
                          "and print PSNR and SSIM of the result against the input."),
        click.option("--recursive", is_flag=True,
                     help="Also restore the images in subfolders; -o gets the same subfolders."),
        click.option("--ext", type=click.Choice(EXTENSIONS), default="keep", show_default=True,
                     help="File format of the results; keep: the format of each input."),
        max_pixels,
        as_json,
        quiet,
        overwrite,
        click.option("--skip-existing", is_flag=True,
                     help="Skip files whose result exists, is complete, and was made by this "
                          "command from the same input."),
        configurable,
    )


measuring = combine(
    click.argument("file", type=TypedPath()),
    output_file,
    click.option("--noise", type=LevelOrLaw(0), default=0.0, show_default=True,
                 help="Standard deviation of the noise to add, in units of [0, 1]: a number, or a "
                      f"fraction such as 25/255. Or its law: {SYNTAX}."),
    seed,
    max_pixels,
    quiet,
    overwrite,
)

mask = combine(
    click.option("--mask", type=Mask(), default="alpha", show_default=True,
                 help="Pixels to fill in: a mask file (white = fill in), a folder of masks with "
                      "the names of the images, alpha (transparent pixels), random=SHARE (that "
                      "share of all pixels) or box=HEIGHTxWIDTH (a box at the centre)."),
    click.option("--invert-mask", is_flag=True,
                 help="Swap the pixels to fill in and the known pixels: black = fill in."),
)

filling = combine(
    click.option("--grow", type=click.IntRange(0), default=0, show_default=True, metavar="N",
                 help="Also fill in the pixels within N pixels of the mask, such as the soft "
                      "border or the halo of a removed object."),
    click.option("--fill", type=click.Choice(["smooth", "texture", "auto"]),
                 help="smooth: the likeliest pixels, a blur in wide holes. texture: their tones "
                      "with the texture of patches of the same image, which may repeat "
                      "objects. auto: texture in wide holes only.  [default: auto, but smooth "
                      "with --solver or --samples]"),
    click.option("--adapt", type=Adapt(), metavar="60s|N",
                 help="First train a copy of the prior further on the known pixels of each image, "
                      "for a time such as 60s, or N steps. It helps where the image repeats "
                      "itself."),
)

_boundary = click.option(
    "--boundary", type=click.Choice(["valid", "reflect", "replicate", "circular"]),
    default="valid", show_default=True,
    help="Assumption about the pixels beyond the border; valid makes none.",
)
blur = combine(
    click.option("--gaussian", type=click.FloatRange(0, min_open=True),
                 help="Gaussian blur: its standard deviation, pixels."),
    click.option("--motion", type=Motion(), help="Motion blur: length (pixels), angle (degrees)."),
    click.option("--kernel", type=TypedPath(), help="Any blur: image or NPY file of its kernel."),
    _boundary,
)

blur_found = combine(
    click.option("--gaussian", type=GaussianOrAuto(),
                 help="Gaussian blur: its standard deviation, pixels; auto: estimate it."),
    click.option("--motion", type=MotionOrAuto(),
                 help="Motion blur: length (pixels), angle (degrees); auto: estimate both."),
    click.option("--kernel", type=KernelOrAuto(),
                 help="Any blur: image or NPY file of its kernel. auto: estimate it from each "
                      "image, and write it to STEM.kernel.png beside the result; auto=SIZE: at "
                      "most SIZE pixels wide (default 31). A file of that name is ./auto."),
    _boundary,
)

SAMPLINGS = ("4:4:4", "4:2:2", "4:4:0", "4:2:0")
jpeg_found = combine(
    click.option("--jpeg-quality", type=JPEGQuality(), default="auto", show_default=True,
                 help="Quality of the JPEG, 1 to 100. auto: the tables of a JPEG file; of any "
                      "other file the quality is estimated from its pixels."),
    click.option("--sampling", type=click.Choice(["auto", *SAMPLINGS]), default="auto",
                 show_default=True,
                 help="Resolution of the chroma. auto: that of the file, or estimated."),
)
jpeg = combine(
    click.option("--jpeg-quality", "quality", type=click.IntRange(1, 100), required=True,
                 help="Quality of the JPEG, 1 to 100, by the standard tables."),
    click.option("--sampling", type=click.Choice(SAMPLINGS), default="4:2:0", show_default=True,
                 help="Resolution of the chroma."),
)

exposure = combine(
    click.option("--factor", type=click.FloatRange(1, min_open=True), default=2.0,
                 show_default=True,
                 help="How many times as bright the image is as the scene: pixels of up to N "
                      "times white are restored, and the result is N times as dark."),
    click.option("--pivot", type=click.FloatRange(0, 1), default=0.0, show_default=True,
                 help="Value that the exposure does not change. 0: highlights are clipped only. "
                      "0.5: shadows as well, the high dynamic range of papers."),
    click.option("--white", type=WhiteLevel(), default="auto", show_default=True,
                 help="Pixel values from here on count as clipped. auto: 250/255 in photos, 1 in "
                      "clean images."),
)

# Of tasks of evaluate only.
phase = combine(
    click.option("--oversampling", type=click.FloatRange(1), default=2.0, show_default=True,
                 help="Ratio of the sides of the measured Fourier transform and of the image."),
    click.option("--masks", type=click.IntRange(0), default=0, show_default=True,
                 help="Number of random masks of coded diffraction; 0 for oversampling instead."),
)
gamma = click.option("--gamma", type=click.FloatRange(0, min_open=True), default=1 / 2.2,
                     show_default="1/2.2", help="Exponent of the power law.")
levels = click.option("--levels", type=click.IntRange(2), default=8, show_default=True,
                      help="Number of levels to which each value is rounded.")

_filter = combine(
    click.option("--filter", "kernel", type=click.Choice(["bicubic", "box", "gaussian"]),
                 default="bicubic", show_default=True,
                 help="Low-pass filter of the operator, applied before it takes every Nth pixel."),
    click.option("--std", type=click.FloatRange(0, min_open=True),
                 help="Standard deviation of --filter gaussian, pixels of the large image.  "
                      "[default: 0.45 times the factor]"),
    click.option("--kernel", "blur", type=TypedPath(),
                 help="Any low-pass filter in place of --filter: image or NPY file of its kernel, "
                      "in pixels of the large image."),
    click.option("--boundary", type=click.Choice(["symmetric", "reflect", "circular"]),
                 default="symmetric", show_default=True,
                 help="Assumption about the pixels beyond the border."),
)

mosaic = click.option("--pattern", type=click.Choice(["RGGB", "BGGR", "GRBG", "GBRG"]),
                      default="RGGB", show_default=True,
                      help="Colours of the upper left 2 x 2 pixels of the sensor, row by row.")
sensing = combine(
    click.option("--ratio", type=click.FloatRange(0, 1, min_open=True), required=True,
                 help="Share of the coefficients that are measured."),
    click.option("--sensing-seed", "sensing_seed", type=click.IntRange(0), default=0,
                 show_default=True, help="Seed of the random choice of the coefficients."),
)

superres = combine(
    click.option("--factor", type=click.IntRange(2, MAX_SIDE), default=2, show_default=True,
                 help="Ratio of the sides of the large and the small image."),
    _filter,
)

# The operator has an integer factor: images are restored at the next one, and resampled.
superres_any_size = combine(
    click.option("--factor", type=Factor(),
                 help="Ratio of the sides of the large and the small image. If it is not whole, "
                      "the image is restored at the next whole factor and then resampled.  "
                      "[default: 2]"),
    click.option("--size", type=OutputSize(),
                 help="Size of the result, WIDTHxHEIGHT, in place of --factor; the proportions "
                      "must be those of the image."),
    _filter,
)
