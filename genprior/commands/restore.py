"""inpaint, deblur, superres, denoise: restore files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from genprior import options
from genprior.commands.progress import Progress


@click.command()
@options.mask
@options.restoring(noise=0.0)
def inpaint(mask: tuple[str, Any], invert_mask: bool, **common: Any) -> None:
    """Fill in missing pixels."""
    from genprior.tasks import inpainting

    operator = inpainting(mask, invert_mask, common["seed"])
    settings = {"mask": options.mask_text(mask), "invert_mask": invert_mask}
    _restore("inpaint", operator, settings, opaque=mask[0] == "alpha", **common)


@click.command()
@options.blur
@options.restoring(noise=0.01)
def deblur(
    gaussian: float, motion: tuple, kernel: Path, boundary: str, **common: Any
) -> None:
    """Remove a known blur."""
    options.check_blur(gaussian, motion, kernel)
    from genprior.tasks import blurring

    operator = blurring(gaussian, motion, kernel, boundary)
    text = motion and f"{motion[0]},{motion[1]}"
    settings = {"gaussian": gaussian, "motion": text, "kernel": kernel, "boundary": boundary}
    _restore("deblur", operator, settings, **common)


@click.command()
@options.superres
@options.restoring(noise=0.01)
def superres(factor: int, kernel: str, std: float, boundary: str, **common: Any) -> None:
    """Enlarge an image."""
    options.check_filter(kernel, std)
    from genprior.tasks import enlarging

    settings = {"factor": factor, "filter": kernel, "std": std, "boundary": boundary}
    _restore("superres", enlarging(factor, kernel, std, boundary), settings, **common)


@click.command()
@options.restoring(noise=None)
def denoise(**common: Any) -> None:
    """Remove white noise of a known level."""
    from genprior.tasks import denoising

    _restore("denoise", denoising(), {}, **common)


def _restore(
    task: str,
    operator: Callable,
    settings: dict[str, Any],
    *,
    files: tuple[Path, ...],
    output: Path | None,
    noise: float,
    as_json: bool,
    quiet: bool,
    overwrite: bool,
    opaque: bool = False,
    **options: Any,
) -> None:
    save, samples = options["save"], options["samples"]
    if {"mean", "std", "samples"} & set(save) and samples < 2:
        raise click.UsageError("--save mean, std or samples needs --samples 2 or more")
    from genprior.jobs import Job, run
    from genprior.places import list_files, plan

    places = plan(list_files(files), output, save, samples, overwrite)
    job = Job(task, operator, settings, noise, opaque=opaque, **options)
    records = []
    with Progress(quiet or as_json) as progress:
        for record in run(job, places, progress.update):
            records.append(record)
            progress.write(_line(record))
            for warning in record["warnings"]:
                progress.write(f"warning: {record['output']}: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(records, indent=1, allow_nan=False))


def _line(record: dict[str, Any]) -> str:
    parts = [f"{record['input']} -> {record['output']}"]
    if record["degrade"]:
        parts.append(f"PSNR {_decibels(record['psnr'])}")
    if "ssim" in record:
        parts.append(f"SSIM {record['ssim']:.4f}")
    if "psnr_measurement" in record:
        parts.append(f"(measurement {_decibels(record['psnr_measurement'])})")
    parts.append(
        f"[{record['solver']}, noise {record['noise']:g}, {record['nfe']} NFE, "
        f"{record['seconds']:.1f} s]"
    )
    return " ".join(parts)


def _decibels(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2f} dB"
