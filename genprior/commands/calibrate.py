"""genprior calibrate: intervals of pixels with a promised coverage, by conformal calibration."""

import os
from pathlib import Path
from typing import Any

import click

from genprior.commands import options
from genprior.commands.path_types import TypedPath
from genprior.commands.progress import Progress
from genprior.commands.registered_names import Names
from genprior.commands.task_syntax import Task, TaskText
from genprior.io.limits import MAX_SAMPLES
from genprior.registry import FROM_EXEMPLAR, SOLVERS


@click.command()
@click.argument("photos", type=TypedPath())
@click.option("-o", "--output", "out", required=True, type=TypedPath(),
              help="File to write, such as calibration.json.")
@click.option("--task", "tasks", type=Task(), multiple=True, required=True,
              help="Task to calibrate, as for genprior evaluate: denoise:noise=25/255, "
                   "inpaint:random=0.5, superres:factor=2,noise=0.01. May be repeated.")
@options.prior
@click.option("--solver", type=Names(lambda: ("auto", *SOLVERS)), default="auto",
              show_default=True, help="Solver, one that draws samples.")
@options.steps
@click.option("--samples", type=click.IntRange(2, MAX_SAMPLES), default=19, show_default=True,
              help="Posterior samples per photo; later restorations need as many.")
@click.option("--coverage", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              default=0.9, show_default=True,
              help="Promised share of pixels inside their interval, on average over new photos.")
@click.option("--crop", type=click.IntRange(1), help="Side of the centre crop of each photo, "
              "pixels; crop=SIZE in a task overrides it.  [default: the whole photo]")
@options.resize
@click.option("--every", type=click.IntRange(1), default=1, show_default=True,
              help="Use every Nth photo only.")
@options.seed
@options.device
@options.dtype
@options.max_pixels
@options.quiet
@options.overwrite
def calibrate(
    photos: Path, out: Path, tasks: tuple[TaskText, ...], prior: str,
    prior_settings: dict[str, Any], solver: str, steps: int | str, samples: int,
    coverage: float, crop: int | None, resize: int | None, every: int, seed: int, device: str,
    dtype: str, max_pixels: int, quiet: bool, overwrite: bool,
) -> None:
    """Calibrate the intervals of restored pixels on photos.

    PHOTOS: a folder of clean images like those that will be restored, and that neither trained
    the prior nor chose a setting. Their measurements are simulated and restored. The intervals of
    each task are then scaled so that, on average over new photos, the promised share of the
    pixels lies inside. 60 photos or more are recommended; 9 are the least for 90 %.

    The restoring commands use the file: --calibration FILE --samples 19 --save lower,upper.
    """
    if prior in FROM_EXEMPLAR:
        raise click.UsageError(f"--prior {prior} differs from image to image: choose another one")
    import torch

    from genprior.core.atomic_files import write_atomic
    from genprior.core.devices import pick_device
    from genprior.core.errors import ImageError
    from genprior.evaluation import plan
    from genprior.evaluation.conformal import calibrate as measure
    from genprior.evaluation.reference_images import open_reference_images

    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ImageError(f"-o {out}: give the path of a file in an existing folder")
    if os.path.lexists(out) and not overwrite:
        raise ImageError(f"{out} exists already: add --overwrite, or choose another -o")
    if any(isinstance(task.noise, str) for task in tasks):
        raise click.UsageError("a task to calibrate needs a noise level, not a law of the noise")
    chosen = [
        plan.Task(t.text, t.kind, t.settings, t.noise, t.crop or crop, max_pixels, resize)
        for t in tasks
    ]
    model, sha256 = plan.load_method_prior(prior, None, max_pixels, **prior_settings)
    model = model.to(pick_device(device, torch.empty(0)))
    method = plan.Method(prior, solver, prior, model, sha256)
    references = list(enumerate(open_reference_images(photos, max_pixels)))[::every]
    with Progress(quiet, unit="photo") as progress:
        found = measure(
            chosen, references, method, samples, coverage, None if steps == "auto" else steps,
            seed, device, dtype, progress.update,
        )
    write_atomic(out, lambda file: file.write(_json(found)))
    if not quiet:
        for entry in found.entries:
            click.echo(
                f"{entry.task}: intervals of {coverage:.0%} are the mean +- {entry.scale:.3g} "
                f"predicted widths, from {entry.images} photos"
            )
        click.echo(str(out))


def _json(calibration: Any) -> bytes:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n"
