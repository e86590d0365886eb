"""The command line. The only module that parses text, prints or exits."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from genprior import __version__, options
from genprior.errors import CheckpointError, ImageError
from genprior.registry import PRIORS

EXIT_INPUT, EXIT_WEIGHTS, EXIT_MEMORY, EXIT_INTERRUPTED = 3, 4, 5, 130


class Commands(click.Group):
    """Turns errors that a user can act on into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (ImageError, CheckpointError, ValueError, TypeError, OSError, ArithmeticError,
                MemoryError, KeyboardInterrupt) as error:
            if os.environ.get("GENPRIOR_DEBUG"):
                raise
            click.echo(f"genprior: {_one_line(error)}", err=True)
            ctx.exit(_exit_code(error))


def _one_line(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _exit_code(error: BaseException) -> int:
    if isinstance(error, CheckpointError):
        return EXIT_WEIGHTS
    if isinstance(error, MemoryError):
        return EXIT_MEMORY
    return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_INPUT


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="genprior")
def main() -> None:
    """Restore images with generative priors.

    Masks are white where pixels are to be filled in. Noise levels are in units of [0, 1].
    Set GENPRIOR_DEBUG=1 to see where an error comes from.
    """


@main.command()
@options.mask
@options.restoring
def inpaint(mask: tuple[str, Any], invert_mask: bool, **common: Any) -> None:
    """Fill in missing pixels."""
    from genprior.tasks import inpainting

    settings = {"mask": mask, "invert": invert_mask, "seed": common["seed"]}
    _restore("inpaint", inpainting(**settings), settings, 0.0, **common)


@main.command()
@options.blur
@options.restoring
def deblur(**given: Any) -> None:
    """Remove a known blur."""
    from genprior.tasks import blurring

    settings = {name: given.pop(name) for name in ("gaussian", "motion", "kernel", "boundary")}
    _restore("deblur", blurring(**settings), settings, 0.01, **given)


@main.command()
@options.superres
@options.restoring
def superres(**given: Any) -> None:
    """Enlarge an image."""
    from genprior.tasks import enlarging

    settings = {name: given.pop(name) for name in ("factor", "kernel", "std", "boundary")}
    _restore("superres", enlarging(**settings), settings, 0.01, **given)


@main.command()
@options.restoring
def denoise(**common: Any) -> None:
    """Remove white noise of a known level."""
    from genprior.tasks import denoising

    if common["noise"] is None:
        raise click.UsageError("denoise needs --noise, in units of [0, 1]: 25/255 is 0.098")
    _restore("denoise", denoising(), {}, 0.0, **common)


def _restore(
    task: str,
    operator: Callable,
    settings: dict[str, Any],
    default_noise: float,
    *,
    files: tuple[Path, ...],
    output: Path | None,
    noise: float | None,
    save: tuple[str, ...],
    degrade: bool,
    as_json: bool,
    quiet: bool,
    overwrite: bool,
    **solve: Any,
) -> None:
    if ("std" in save or "mean" in save or "samples" in save) and solve["samples"] < 2:
        raise click.UsageError("--save mean, std or samples needs --samples 2 or more")
    from genprior.jobs import Job, list_files, plan_outputs, run

    found = list_files(files)
    outputs = plan_outputs(found, output)
    noise_std = default_noise if noise is None else noise
    opaque = settings.get("mask") == ("alpha", None)
    job = Job(task, operator, settings, noise_std, save, degrade, overwrite, opaque, solve)
    records = []
    with _Progress(quiet) as progress:
        for record in run(job, found, outputs, progress.update):
            records.append(record)
            if not (quiet or as_json):
                progress.write(_line(record))
    if as_json:
        click.echo(json.dumps(records, indent=1, default=str))


def _line(record: dict[str, Any]) -> str:
    parts = [f"{record['input']} -> {record['output']}"]
    if "psnr" in record:
        parts.append(f"PSNR {record['psnr']:.2f} dB")
    if "ssim" in record:
        parts.append(f"SSIM {record['ssim']:.4f}")
    if "psnr_measurement" in record:
        parts.append(f"(measurement {record['psnr_measurement']:.2f} dB)")
    parts.append(f"[{record['solver']}, {record['nfe']} NFE, {record['seconds']:.1f} s]")
    return "\n".join([" ".join(parts), *(f"warning: {text}" for text in record["warnings"])])


class _Progress:
    """A progress bar on stderr that counts network evaluations; silent where it is no terminal."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.bar = quiet, None

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, total: int) -> None:
        if self.bar is None or done == 1:
            from tqdm import tqdm

            self.__exit__()
            hidden = True if self.quiet else None
            self.bar = tqdm(total=total, unit="NFE", disable=hidden, leave=False, file=sys.stderr)
        self.bar.update(1)

    def write(self, text: str) -> None:
        if self.bar is not None:
            self.bar.clear()
        click.echo(text)


@main.group()
def degrade() -> None:
    """Make a measurement from a clean image, to try things."""


def _degrade(
    operator: Callable, file: Path, output: Path, noise: float, seed: int, overwrite: bool
) -> None:
    from genprior import api
    from genprior.images import read_image, write_image

    if output.exists() and not overwrite:
        raise ImageError(f"{output} exists: add --overwrite, or another -o")
    picture = read_image(file)
    built = operator([picture], True)
    y = api.degrade(picture.pixels, built, noise, seed)
    alpha = built.observed(y.new_ones(y.shape))[:, :1]
    write_image(output, y, like=picture, alpha=alpha if (alpha == 0).any() else None)
    click.echo(f"{file} -> {output}")


def _measuring(command: Callable) -> Callable:
    for option in (
        options.overwrite,
        options.seed,
        click.option("--noise", type=click.FloatRange(0), default=0.0, show_default=True,
                     help="Noise to add, in units of [0, 1]."),
        click.option("-o", "--output", required=True, type=click.Path(path_type=Path)),
        click.argument("file", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


@degrade.command("inpaint")
@options.mask
@_measuring
def degrade_inpaint(mask: tuple[str, Any], invert_mask: bool, seed: int, **given: Any) -> None:
    """Knock out pixels; they become transparent."""
    from genprior.tasks import inpainting

    _degrade(inpainting(mask, invert_mask, seed), seed=seed, **given)


@degrade.command("deblur")
@options.blur
@_measuring
def degrade_deblur(
    gaussian: float, motion: tuple, kernel: Path, boundary: str, **given: Any
) -> None:
    """Blur."""
    from genprior.tasks import blurring

    _degrade(blurring(gaussian, motion, kernel, boundary), **given)


@degrade.command("superres")
@options.superres
@_measuring
def degrade_superres(factor: int, kernel: str, std: float, boundary: str, **given: Any) -> None:
    """Make smaller."""
    from genprior.tasks import enlarging

    _degrade(enlarging(factor, kernel, std, boundary), **given)


@degrade.command("denoise")
@_measuring
def degrade_denoise(**given: Any) -> None:
    """Add noise only."""
    from genprior.tasks import denoising

    _degrade(denoising(), **given)


@main.command()
@options.prior
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(1), default=1, show_default=True)
@click.option("--size", type=options.Size(), default="256x256", show_default=True)
@click.option("--eta", type=click.FloatRange(0, 1), default=1.0, show_default=True,
              help="1 is ancestral sampling, 0 is DDIM.")
@options.steps
@options.seed
@options.device
@options.quiet
@options.overwrite
def sample(
    prior: str, output: Path, count: int, size: tuple[int, int], eta: float, steps: int | None,
    seed: int, device: str, quiet: bool, overwrite: bool,
) -> None:
    """Draw images from a prior, side by side in one file."""
    if output.exists() and not overwrite:
        raise ImageError(f"{output} exists: add --overwrite, or another -o")
    from genprior import api
    from genprior.images import write_image
    from genprior.panel import panel

    with _Progress(quiet) as progress:
        x = api.sample(prior, count, size, steps=steps or 100, eta=eta, seed=seed,
                       device=device, progress=progress.update)
    write_image(output, panel(list(x.cpu().split(1))))
    if not quiet:
        click.echo(str(output))


@main.group()
def priors() -> None:
    """The priors that ship, and checkpoints of yours."""


@priors.command("list")
def priors_list() -> None:
    """Names of the priors whose weights ship, and of those that can be trained."""
    from genprior.weights import embedded_priors

    for name, folder in embedded_priors().items():
        manifest = json.loads((folder / "manifest.json").read_text())
        click.echo(f"{name:16} {manifest.get('summary', '')}")
    click.echo(f"trainable: {', '.join(sorted(PRIORS))}")


@priors.command("info")
@click.argument("name")
def priors_info(name: str) -> None:
    """The manifest of a prior."""
    from genprior.weights import find_prior

    click.echo((find_prior(name) / "manifest.json").read_text(), nl=False)


@priors.command("verify")
@click.argument("names", nargs=-1)
def priors_verify(names: tuple[str, ...]) -> None:
    """Check the weights against their manifests (all that ship, if none is named)."""
    from genprior.checkpoint import load_checkpoint
    from genprior.weights import embedded_priors, find_prior

    for name in names or tuple(embedded_priors()):
        load_checkpoint(find_prior(name))
        click.echo(f"{name}: ok")


@main.command()
@click.argument("prior", type=click.Choice(sorted(PRIORS)))
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", required=True, type=click.Path(path_type=Path))
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps in all.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True),
              help="Training time in all, minutes, resumed parts included.")
@click.option("--crop", type=click.IntRange(8), default=64, show_default=True,
              help="Side of the crops, pixels.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True,
              help="Crops a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=5e-4, show_default=True,
              help="Peak learning rate.")
@click.option("--set", "arguments", multiple=True, metavar="NAME=VALUE",
              help="Argument of the prior, JSON value; may be repeated.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16",
              show_default=True, help="Precision of the network.")
@click.option("--resume", is_flag=True, help="Continue the run in --output.")
@options.seed
@options.device
@options.quiet
def train(
    prior: str, data: tuple[Path, ...], out: Path, crop: int, resume: bool, device: str,
    arguments: tuple[str, ...], quiet: bool, **settings: Any,
) -> None:
    """Train a prior on folders of images."""
    if (settings["steps"] is None) == (settings["minutes"] is None):
        raise click.UsageError("give the length of the training: either --steps or --minutes")
    import torch

    from genprior.api import pick_device
    from genprior.data import Crops
    from genprior.fit import Settings, fit
    from genprior.registry import lookup

    torch.manual_seed(settings["seed"])
    model = lookup(PRIORS, prior, "prior")(**_prior_arguments(arguments))
    model.to(pick_device(device, torch.empty(0)))
    crops = Crops(data, crop, model.config["channels"], settings["seed"])
    about = {"data": [path.name for path in data], "images": len(crops.images), "crop": crop}
    with click.progressbar(length=10**6, label=prior, file=sys.stderr, hidden=quiet) as bar:

        def report(step: int, done: float, loss: float) -> None:
            bar.label = f"{prior} step {step} loss {loss:.4f}"
            bar.update(int(done * bar.length) - bar.pos)

        folder = fit(prior, model, crops, out, Settings(**settings), about, resume, report)
    click.echo(str(folder))


def _prior_arguments(arguments: tuple[str, ...]) -> dict[str, Any]:
    parsed = {}
    for text in arguments:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--set {text}: write NAME=VALUE")
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed
