"""genprior inpaint, deblur, superres, denoise and others: restoration of image files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from genprior.api.files.save_options import OF_CALIBRATION, of_several
from genprior.commands import options
from genprior.commands.console import Report
from genprior.commands.path_types import typed_files
from genprior.commands.standard_streams import streams


@click.command()
@options.mask
@options.filling
@options.restoring("inpaint")
def inpaint(
    mask: tuple[str, Any], invert_mask: bool, grow: int, fill: str | None,
    adapt: float | int | None, **common: Any
) -> None:
    """Fill in missing pixels.

    FILES: images, folders of images, or - for standard input. With --noise 0 the known pixels do
    not change; with --noise auto or a level they are denoised as well. With --prior texture and
    no --exemplar the texture is estimated from the known pixels of each image.
    """
    from genprior.api.tasks import inpainting

    tell = None if common["quiet"] else partial(click.echo, err=True)
    limit = common["max_pixels"]
    operator = inpainting(mask, invert_mask, common["seed"], limit, tell, grow)
    settings = {"mask": options.Mask.text(mask), "invert_mask": invert_mask}
    settings |= {"grow": grow, "fill": fill} | ({} if adapt is None else {"adapt": adapt})
    common |= {"fill": fill, "adapt": adapt}
    masks = mask[1] if mask[0] == "file" else None
    _restore("inpaint", operator, settings, opaque=mask[0] == "alpha", masks=masks, **common)


@click.command()
@options.blur_found
@options.restoring("deblur")
def deblur(
    gaussian: float | str, motion: tuple | str, kernel: Path | str, boundary: str, **common: Any
) -> None:
    """Remove a blur that is known, or estimated (auto), and noise.

    FILES: images, folders of images, or - for standard input. Give one of --gaussian, --motion
    and --kernel.
    """
    options.check_blur(gaussian, motion, kernel)
    from genprior.api.tasks import blurring

    given = (gaussian, motion, kernel)
    common["blind"] = any(isinstance(blur, str) for blur in given)
    if common["blind"] and common["degrade"]:
        raise click.UsageError("--degrade blurs the image first: give the blur in place of auto")
    level = None if common["noise"] == "auto" else common["noise"]
    operator = blurring(gaussian, motion, kernel, boundary, common["max_pixels"], level)
    text = motion if isinstance(motion, str) else motion and options.Motion.text(motion)
    settings = {"gaussian": gaussian, "motion": text, "kernel": kernel, "boundary": boundary}
    _restore("deblur", operator, settings, **common)


@click.command()
@options.superres_any_size
@options.restoring("superres")
def superres(
    factor: float | None, size: tuple[int, int] | None, kernel: str, std: float,
    blur: Path | None, boundary: str, **common: Any,
) -> None:
    """Enlarge an image by a factor, or to a size (super-resolution).

    FILES: images, folders of images, or - for standard input.
    """
    options.check_filter(kernel, std, blur)
    if factor and size:
        raise click.UsageError("--factor and --size both set the size: give one of them")
    factor = factor if factor or size else 2
    if common["degrade"] and not isinstance(factor, int):
        raise click.UsageError("--degrade reduces an image by a whole --factor: give one")
    from genprior.api.tasks import enlarging

    text = size and options.OutputSize.text(size)
    settings = {"factor": factor, "size": text, "filter": kernel, "std": std}
    settings |= {"kernel": blur, "boundary": boundary}
    build = enlarging(factor, kernel, std, boundary, size, common["max_pixels"], blur)
    _restore("superres", build, settings, **common)


@click.command()
@options.restoring("denoise")
def denoise(**common: Any) -> None:
    """Remove noise: white noise of a given level, or noise that is estimated.

    FILES: images, folders of images, or - for standard input. Without --noise the level is
    estimated, and noise of cameras, which is correlated between neighbours, is removed as such;
    a JPEG file without noise is restored as by dejpeg.
    """
    from genprior.api.tasks import denoising

    _restore("denoise", denoising(), {}, **common)


@click.command()
@options.jpeg_found
@options.restoring("dejpeg")
def dejpeg(jpeg_quality: int | str, sampling: str, **common: Any) -> None:
    """Remove the blocks, rings and colour blotches of JPEG compression.

    FILES: images, folders of images, or - for standard input. JPEG files tell how they were
    compressed. Other files may have been JPEG before: their quality is estimated. The result is
    coded again in the format of the input; --ext png keeps all of it.
    """
    if common["degrade"] and jpeg_quality == "auto":
        raise click.UsageError("--degrade compresses the image first: give --jpeg-quality")
    from genprior.api.tasks import decompressing

    settings = {"jpeg_quality": jpeg_quality, "sampling": sampling}
    _restore("dejpeg", decompressing(jpeg_quality, sampling), settings, **common)


@click.command()
@options.restoring("colorize")
def colorize(**common: Any) -> None:
    """Give a grey image colours that its luminance allows.

    FILES: images, folders of images, or - for standard input. Of a colour image the luminance is
    taken. Colours are not known from the grey image: --samples 4 --save samples writes several
    results. Better colours need a prior of images like yours.
    """
    from genprior.api.tasks import colorizing

    _restore("colorize", colorizing(), {}, **common)


@click.command()
@options.mosaic
@options.restoring("demosaic")
def demosaic(pattern: str, **common: Any) -> None:
    """Reconstruct the colours of a sensor that sees one colour at each pixel.

    FILES: grey images of the raw pixels, folders of images, or - for standard input. The values
    should have the gamma of photos, as the prior knows these. With --noise the noise of the sensor
    is removed, too.
    """
    from genprior.api.tasks import demosaicing

    _restore("demosaic", demosaicing(pattern), {"pattern": pattern}, **common)


@click.command("compressed-sensing")
@options.sensing
@options.restoring("compressed-sensing")
def compressed_sensing(ratio: float, sensing_seed: int, **common: Any) -> None:
    """Reconstruct an image from some random coefficients of its Hartley transform.

    FILES: NPY files of coefficients, as genprior degrade compressed-sensing writes them; with
    --degrade, images.
    """
    from genprior.api.tasks import sensing

    settings = {"ratio": ratio, "sensing_seed": sensing_seed}
    _restore("compressed-sensing", sensing(ratio, sensing_seed), settings, **common)


@click.command()
@options.exposure
@options.restoring("hdr")
def hdr(factor: float, pivot: float, white: float | str, **common: Any) -> None:
    """Restore clipped highlights of an over-exposed image.

    FILES: images, folders of images, or - for standard input. The result is darker by --factor,
    so that the highlights have room: what was white may now be up to that many times brighter.
    """
    options.check_exposure(pivot, white)
    from genprior.api.tasks import clipping

    settings = {"factor": factor, "pivot": pivot, "white": white}
    _restore("hdr", clipping(factor, pivot, white), settings, **common)


def _restore(
    task: str,
    operator: Callable,
    settings: dict[str, Any],
    *,
    files: tuple[Path, ...],
    output: Path | None,
    noise: float | str,
    recursive: bool,
    ext: str,
    as_json: bool,
    quiet: bool,
    overwrite: bool,
    skip_existing: bool,
    opaque: bool = False,
    masks: Path | None = None,
    blind: bool = False,
    **common: Any,
) -> None:
    save, samples = common["save"], common["samples"]
    if noise == "auto" and common["degrade"]:
        raise click.UsageError("--degrade adds noise: give its level with --noise")
    several = [name for name in save if of_several(name)]
    if several and samples < 2:
        raise click.UsageError(f"--save {','.join(several)} needs --samples 2 or more")
    if set(save) & set(OF_CALIBRATION) and common["calibration"] is None:
        raise click.UsageError("--save lower,upper needs --calibration FILE")
    if common["calibration"] is not None and samples < 2:
        raise click.UsageError("--calibration needs --samples: the number that was calibrated")
    from genprior.api.files.job import Job
    from genprior.api.files.paths import plan
    from genprior.api.files.restore_files import run
    from genprior.core.distributed import joined
    from genprior.io.images import FORMAT_OF

    suffix = None if ext == "keep" else f".{ext}"
    with joined() as ranks, streams(files, output, recursive, as_json) as opened:
        found, output, to_stdout = opened
        for file in found if masks else ():
            own = masks / file.below / file.file.name if masks.is_dir() else masks
            if own.exists() and file.file.exists() and own.samefile(file.file):
                raise click.UsageError(f"--mask {own} is the image itself: give its mask")
        if to_stdout and ranks.world > 1:
            raise click.UsageError("standard output needs a single process: give -o a file")
        common["device"] = ranks.device(common["device"])
        job = Job(task, operator, settings, noise, opaque=opaque, **common)
        typed = FORMAT_OF.get(output.suffix.lower()) if output else None
        if suffix and typed not in (None, FORMAT_OF[suffix]):
            raise click.UsageError(f"--ext {ext} does not match -o {output}: leave one out")
        if to_stdout and save:
            raise click.UsageError("standard output holds one image: with --save give -o a file")
        redo = task if skip_existing else None
        extras = (*save, "kernel") if blind and not to_stdout else save
        targets = plan(found, output, extras, samples, overwrite, suffix, redo, typed_files())
        report = Report(len(targets), as_json, quiet, to_stdout)
        done = [target for target in targets if skip_existing and target.is_made(task)]
        remaining = [target for target in targets if target not in done]
        ranks.wait()  # until every process has looked for existing results
        if ranks.first:
            report.skipped(done)
        with report:
            failed = report.failed if len(targets) > 1 or as_json else None
            for record in run(job, ranks.share(remaining), report.update, failed):
                report.restored(record)
        report.gather(ranks, targets)
    report.finish(ranks.first)
