"""genprior degrade: simulated measurements of a clean image."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from genprior.commands import options
from genprior.commands.path_types import typed_files


@click.group()
def degrade() -> None:
    """Simulate a measurement of a clean image: apply an operator, add noise."""


@degrade.command()
@options.mask
@options.measuring
def inpaint(mask: tuple[str, Any], invert_mask: bool, seed: int, **common: Any) -> None:
    """Remove pixels: they become transparent in the output.

    FILE: the clean image. `genprior inpaint` reads the transparent pixels of the output as the
    mask.
    """
    from genprior.api.tasks import inpainting

    tell = None if common["quiet"] else partial(click.echo, err=True)
    operator = inpainting(mask, invert_mask, seed, common["max_pixels"], tell)
    _degrade(operator, seed=seed, **common)


@degrade.command()
@options.blur
@options.measuring
def deblur(
    gaussian: float, motion: tuple, kernel: Path, boundary: str, **common: Any
) -> None:
    """Blur an image.

    FILE: the clean image. Give one of --gaussian, --motion and --kernel.
    """
    options.check_blur(gaussian, motion, kernel)
    from genprior.api.tasks import blurring

    operator = blurring(gaussian, motion, kernel, boundary, common["max_pixels"])
    _degrade(operator, **common)


@degrade.command()
@options.superres
@options.measuring
def superres(
    factor: int, kernel: str, std: float, blur: Path | None, boundary: str, **common: Any
) -> None:
    """Filter an image and reduce its size by an integer factor.

    FILE: the clean image.
    """
    options.check_filter(kernel, std, blur)
    from genprior.api.tasks import enlarging

    limit = common["max_pixels"]
    _degrade(enlarging(factor, kernel, std, boundary, max_pixels=limit, blur=blur), **common)


@degrade.command()
@options.measuring
def denoise(**common: Any) -> None:
    """Add noise and apply no operator.

    FILE: the clean image.
    """
    from genprior.api.tasks import denoising

    _degrade(denoising(), **common)


@degrade.command()
@options.jpeg
@options.measuring
def dejpeg(quality: int, sampling: str, **common: Any) -> None:
    """Compress an image as JPEG, and decode it.

    FILE: the clean image.
    """
    from genprior.api.tasks import decompressing

    _degrade(decompressing(quality, sampling), **common)


@degrade.command()
@options.measuring
def colorize(**common: Any) -> None:
    """Take the colours away: write the luminance.

    FILE: the clean image.
    """
    from genprior.api.tasks import colorizing

    _degrade(colorizing(), **common)


@degrade.command()
@options.mosaic
@options.measuring
def demosaic(pattern: str, **common: Any) -> None:
    """Keep one colour at each pixel, as a sensor sees it, in a grey image.

    FILE: the clean image.
    """
    from genprior.api.tasks import demosaicing

    _degrade(demosaicing(pattern), **common)


@degrade.command("compressed-sensing")
@options.sensing
@options.measuring
def compressed_sensing(ratio: float, sensing_seed: int, **common: Any) -> None:
    """Measure random coefficients of the Hartley transform.

    FILE: the clean image. The output must be an NPY file, since coefficients may be negative.
    """
    if common["output"].suffix.lower() != ".npy":
        raise click.UsageError("coefficients may be negative: give -o the name of an NPY file")
    from genprior.api.tasks import sensing

    _degrade(sensing(ratio, sensing_seed), **common)


@degrade.command()
@options.exposure
@options.measuring
def hdr(factor: float, pivot: float, white: float | str, **common: Any) -> None:
    """Over-expose an image, so that its highlights are clipped.

    FILE: the clean image.
    """
    options.check_exposure(pivot, white)
    from genprior.api.tasks import clipping

    _degrade(clipping(factor, pivot, white), **common)


def _degrade(
    operator: Callable, file: Path, output: Path, noise: float | str, seed: int, max_pixels: int,
    quiet: bool, overwrite: bool,
) -> None:
    from genprior.api.files.paths import check_free
    from genprior.api.files.restore_files import measure

    check_free([output], overwrite, reads=typed_files())
    measure(operator, file, output, noise, seed, max_pixels, overwrite)
    if not quiet:
        click.echo(f"{file} -> {output}")
