"""Restoring files: read, group into batches, restore, write the pictures and a sidecar.

Every file is restored as if it were alone: its noise depends on the seed only, not on the
files beside it.
"""

import hashlib
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
from genprior.exemplars import estimate_prior, read_exemplar
from genprior.files import write_atomic
from genprior.frugal import Tile
from genprior.images import Picture, read_image, write_image
from genprior.inverse.base import Restoration, Solver
from genprior.operators.base import Operator
from genprior.panel import panel, std_map
from genprior.parts import choose_solver, make_solver
from genprior.places import Place
from genprior.record import describe, doubts, quality
from genprior.registry import FROM_EXEMPLAR
from genprior.watch import pick_device
from genprior.weights import find_prior

MakeOperator = Callable[[list[Picture], bool], Operator]
BATCH, BATCH_PIXELS = 16, 2**24
BORDER = 3


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
        exemplar: Picture that the prior "texture" is estimated from; None to inpaint each
            file with the texture of its own known part.
        prior, solver, steps, samples, seed, device, dtype, tile: See `restore`.
    """

    task: str
    operator: MakeOperator
    settings: dict[str, Any]
    noise: float
    save: tuple[str, ...] = ()
    degrade: bool = False
    opaque: bool = False
    exemplar: Path | None = None
    prior: str = "ddpm"
    solver: str = "auto"
    steps: int | None = None
    samples: int = 1
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    tile: Tile = "auto"


@dataclass(frozen=True)
class _Prior:
    """A prior, and the checksum of the file that it comes from."""

    model: nn.Module
    sha256: str


@dataclass(frozen=True)
class _Batch:
    """Pictures of one size."""

    places: list[Place] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def takes(self, picture: Picture, most: int) -> bool:
        """Whether one more picture fits."""
        shape = picture.pixels.shape
        room = min(most, BATCH_PIXELS // shape[-2:].numel())
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
        SettingError: The device, the solver or a setting of it does not exist, or the prior
            does not go with the exemplar or the lack of one.
    """
    device = pick_device(job.device, torch.empty(0))
    prior = _prior_of_all(job, device)
    for place in places if len(places) > 1 else ():
        _measure(job, _Batch([place], [read_image(place.source)]))
    for batch in _batches(places, BATCH if prior else 1):
        yield from _run_batch(job, batch, prior, device, progress)


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


def _prior_of_all(job: Job, device: torch.device) -> _Prior | None:
    """The prior of all files; None if each file has its own."""
    if job.exemplar is not None:
        model, _ = read_exemplar(job.prior, job.exemplar)
        return _Prior(model.to(device), _sha256(job.exemplar))
    if job.prior not in FROM_EXEMPLAR:
        model, manifest = load_checkpoint(find_prior(job.prior))
        return _Prior(model.to(device), manifest["files"][MODEL]["sha256"])
    if job.task != "inpaint":
        raise SettingError(
            f"prior {job.prior!r} is estimated from a picture: give one with --exemplar (only "
            f"inpaint does without, it has the known part of each file)"
        )
    return None


def _prior_of_one(job: Job, source: Path, y: Tensor, operator: Operator) -> _Prior:
    """The prior of one file: that of its known part."""
    keep = operator.observed(torch.ones_like(y))[:, :1]
    with _named(source):
        return _Prior(estimate_prior(job.prior, y, keep), _sha256(source))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _batches(places: list[Place], most: int) -> Iterator[_Batch]:
    batch = _Batch()
    for place in places:
        picture = read_image(place.source)
        if not batch.takes(picture, most):
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
    job: Job, batch: _Batch, prior: _Prior | None, device: torch.device, progress: Callable | None
) -> Iterator[dict[str, Any]]:
    y, operator = _measure(job, batch)
    prior = prior or _prior_of_one(job, batch.places[0].source, y, operator)
    name, solver = _choose_solver(job, operator, prior.model)
    with _named(batch.places[0].source):
        result = restore(
            y, operator, prior.model, solver, job.noise, job.samples, seed=job.seed,
            index=[0] * len(y), device=str(device), dtype=job.dtype,
            tile=job.tile, progress=progress,
        )
    for i, (place, picture) in enumerate(zip(batch.places, batch.pictures, strict=True)):
        truth = None
        if job.degrade:
            truth = operator.visible(picture.pixels)
            alpha = picture.alpha
            picture = replace(picture, alpha=None if alpha is None else operator.visible(alpha))
        record = _facts(job, place, prior, device, name, solver)
        record |= describe(result, i, len(y))
        record["warnings"] += doubts(job.task, job.noise, place.output, picture)
        record |= _save(job, place, result, i, y, truth, picture)
        if truth is not None:
            record |= quality(place.output, truth, y[i : i + 1])
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        write_atomic(place.sidecar, lambda file, text=text: file.write(text.encode()))
        yield record


def _choose_solver(job: Job, operator: Operator, model: nn.Module) -> tuple[str, Solver]:
    name, solver = choose_solver(job.solver, job.steps, operator, model, job.samples)
    # A law estimated from one picture, told all pixels of it, explains them by repeating that
    # picture, hole included. Galerne and Leclaire (2017) tell it those near the hole.
    if (job.task, name) == ("inpaint", "gaussian") and job.prior in FROM_EXEMPLAR:
        solver = make_solver(name, border=BORDER)
    return name, solver


def _facts(
    job: Job, place: Place, prior: _Prior, device: torch.device, name: str, solver: Solver
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
        "exemplar": None if job.exemplar is None else str(job.exemplar),
        "prior_sha256": prior.sha256,
        "solver": name,
        "solver_settings": asdict(solver),
        "samples": job.samples,
        "seed": job.seed,
        "device": str(device),
        "dtype": job.dtype,
        "tile": job.tile,
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
