"""Restoring files: read, group into batches, restore, write the pictures and a sidecar.

Every file is restored as if it were alone: its noise depends on the seed only, not on the
files beside it.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.api import degrade, restore
from genprior.checkpoint import MODEL, load_checkpoint
from genprior.errors import CheckpointError, ImageError, SettingError
from genprior.files import write_atomic
from genprior.images import Picture, read_image, write_image
from genprior.inverse.base import Restoration, Solver
from genprior.operators.base import Operator
from genprior.panel import panel, std_map
from genprior.parts import choose_solver
from genprior.places import Place
from genprior.record import describe, doubts, quality
from genprior.watch import pick_device
from genprior.weights import find_prior

MakeOperator = Callable[[list[Picture], bool], Operator]
BATCH, BATCH_PIXELS = 16, 2**24


@dataclass(frozen=True)
class Job:
    """What to do with files.

    Arguments:
        task: Name of the task, for the record.
        operator: Builds the operator of a batch of pictures of one size; the flag says that
            they are clean.
        settings: Settings of the operator as they are typed, for the record.
        noise: Noise level in units of [0, 1].
        save: What to save besides the picture: "mean", "std", "samples", "panel".
        degrade: The files are clean: measure them first, then compare.
        opaque: The alpha of the files was the hole: it does not go into the result.
        prior, solver, steps, samples, seed, device, dtype: See `restore`.
    """

    task: str
    operator: MakeOperator
    settings: dict[str, Any]
    noise: float
    save: tuple[str, ...] = ()
    degrade: bool = False
    opaque: bool = False
    prior: str = "ddpm"
    solver: str = "auto"
    steps: int | None = None
    samples: int = 1
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"


@dataclass(frozen=True)
class _Prior:
    """A prior that is loaded once, for all files."""

    model: nn.Module
    sha256: str
    device: torch.device


@dataclass(frozen=True)
class _Batch:
    """Pictures of one size."""

    places: list[Place] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def takes(self, picture: Picture) -> bool:
        """Whether one more picture fits."""
        shape = picture.pixels.shape
        room = min(BATCH, BATCH_PIXELS // shape[-2:].numel())
        return not self.pictures or (
            len(self.pictures) < room and self.pictures[0].pixels.shape == shape
        )


def run(
    job: Job, places: list[Place], progress: Callable[[int, int], object] | None = None
) -> Iterator[dict[str, Any]]:
    """Restores files and yields the record of each, as it goes into the sidecar.

    Several files are all looked at before the first one is restored.

    Raises:
        ImageError: A file cannot be read, or not be restored as asked.
        CheckpointError: The prior does not exist or is corrupt.
        SettingError: The device, the solver or a setting of it does not exist.
    """
    device = pick_device(job.device, torch.empty(0))
    model, manifest = load_checkpoint(find_prior(job.prior))
    prior = _Prior(model.to(device), manifest["files"][MODEL]["sha256"], device)
    for place in places if len(places) > 1 else ():
        _measure(job, _Batch([place], [read_image(place.source)]))
    for batch in _batches(places):
        yield from _run_batch(job, batch, prior, progress)


def measure(operator: MakeOperator, file: Path, output: Path, noise: float, seed: int) -> None:
    """Writes a measurement of a clean file; pixels that are missing become transparent.

    Raises:
        ImageError: The file cannot be read, measured or written.
    """
    picture = read_image(file)
    with _named(file):
        built = operator([picture], True)
        y = degrade(picture.pixels, built, noise, seed)
    known = built.observed(torch.ones_like(y))[:, :1]
    output.parent.mkdir(parents=True, exist_ok=True)
    write_image(output, y, like=picture, alpha=known if (known == 0).any() else None)


def _batches(places: list[Place]) -> Iterator[_Batch]:
    batch = _Batch()
    for place in places:
        picture = read_image(place.source)
        if not batch.takes(picture):
            yield batch
            batch = _Batch()
        batch.places.append(place)
        batch.pictures.append(picture)
    yield batch


def _measure(job: Job, batch: _Batch) -> tuple[Tensor, Operator]:
    """The measurements of a batch, and how they were made."""
    pixels = torch.cat([picture.pixels for picture in batch.pictures])
    with _named(batch.places[0].source):
        operator = job.operator(batch.pictures, job.degrade)
        if job.degrade:
            return degrade(pixels, operator, job.noise, job.seed, [0] * len(pixels)), operator
        operator.image_shape(pixels.shape)
        return operator.observed(pixels), operator


def _run_batch(
    job: Job, batch: _Batch, prior: _Prior, progress: Callable | None
) -> Iterator[dict[str, Any]]:
    y, operator = _measure(job, batch)
    name, solver = choose_solver(job.solver, job.steps, operator, prior.model, job.samples)
    with _named(batch.places[0].source):
        result = restore(
            y, operator, prior.model, solver, job.noise, job.samples, seed=job.seed,
            index=[0] * len(y), device=str(prior.device), dtype=job.dtype, progress=progress,
        )
    for i, (place, picture) in enumerate(zip(batch.places, batch.pictures, strict=True)):
        truth = None
        if job.degrade:
            truth = operator.visible(picture.pixels)
            alpha = picture.alpha
            picture = replace(picture, alpha=None if alpha is None else operator.visible(alpha))
        record = _facts(job, place, prior, name, solver)
        record |= describe(result, i, len(y))
        record["warnings"] += doubts(job.task, job.noise, place.output, picture)
        record |= _save(job, place, result, i, y, truth, picture)
        if truth is not None:
            record |= quality(place.output, truth, y[i : i + 1])
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        write_atomic(place.sidecar, lambda file, text=text: file.write(text.encode()))
        yield record


def _facts(
    job: Job, place: Place, prior: _Prior, name: str, solver: Solver
) -> dict[str, Any]:
    """What was asked, in full: enough to do it again."""
    return {
        "task": job.task,
        "input": str(place.source),
        "output": str(place.output),
        "operator": {k: str(v) if isinstance(v, Path) else v for k, v in job.settings.items()},
        "noise": job.noise,
        "degrade": job.degrade,
        "prior": job.prior,
        "prior_sha256": prior.sha256,
        "solver": name,
        "solver_settings": asdict(solver),
        "samples": job.samples,
        "seed": job.seed,
        "device": str(prior.device),
        "dtype": job.dtype,
    }


def _save(
    job: Job,
    place: Place,
    result: Restoration,
    i: int,
    y: Tensor,
    truth: Tensor | None,
    picture: Picture,
) -> dict[str, Any]:
    """Writes the pictures; returns where the extra ones are, and the scale of the std map."""
    place.output.parent.mkdir(parents=True, exist_ok=True)
    one = slice(i, i + 1)
    opaque = replace(picture, alpha=None)
    shown = [y[one], result.image[one]]
    extras = {}
    about: dict[str, Any] = {}
    if result.std is not None:
        extras["std"], about["std_white"] = std_map(result.std[one])
        shown.append(extras["std"])
        extras["mean"] = result.mean[one]
        extras |= {f"sample-{k:02d}": x[None] for k, x in enumerate(result.samples[i])}
    extras["panel"] = panel(shown if truth is None else [*shown, truth])
    for extra in place.extras:
        like = None if extra in ("std", "panel") else opaque
        write_image(place.side(extra), extras[extra], like)
    write_image(place.output, result.image[one], opaque if job.opaque else picture)
    if place.extras:
        about["saved"] = [str(place.side(extra)) for extra in place.extras]
    return about


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says which file an error is about."""
    try:
        yield
    except (CheckpointError, SettingError):
        raise
    except ValueError as error:
        raise ImageError(f"{path}: {error}") from error
