"""Conformal calibration of a prior and a solver on photos with known references."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genprior.api.calibration import (
    SCHEMA,
    Calibration,
    Entry,
    conformal_scale,
    features,
    predicted_width,
    signature,
    weights_digest,
)
from genprior.api.factory import choose_solver
from genprior.api.restoration import degrade, restore
from genprior.core.errors import ImageError, SettingError
from genprior.evaluation.plan import Method, Task
from genprior.evaluation.reference_images import ReferenceImage
from genprior.inverse.base import Restoration

# Pixels of each photo that are kept, drawn at random.
KEPT = 20_000


def calibrate(
    tasks: Sequence[Task],
    references: Sequence[tuple[int, ReferenceImage]],
    method: Method,
    samples: int,
    coverage: float,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    progress: Callable[[int, int, str], object] | None = None,
) -> Calibration:
    """Measures photos, restores them with samples, and calibrates the intervals of each task.

    Arguments:
        tasks: The tasks.
        references: Photos with their numbers, which determine their noise and random masks.
        method: The prior and the solver.
        samples: Samples of each photo.
        coverage: The promised expected share of pixels inside their interval, in (0, 1).
        steps, device, dtype: See `restore`.
        seed: Seed of the measurements and of the samples.
        progress: Called after each photo with (photos done, photos in all, name of the task).

    Raises:
        SettingError: The photos are too few, or a task or the solver does not fit.
        ImageError: A photo cannot be read, or nothing in it is unknown.
    """
    conformal_scale([torch.zeros(1)] * len(references), coverage)  # too few: before any work
    entries, done = [], 0
    for task in tasks:
        ratios, found, sizes, about = [], [], [], {}
        for number, reference in references:
            image, result, one, about = _restored(
                task, number, reference, method, samples, steps, seed, device, dtype
            )
            width = predicted_width(result.std)
            inside = width > 0
            if not inside.any():
                raise ImageError(
                    f"{reference.name}: all samples are equal, so that there is nothing to "
                    f"calibrate: choose another task"
                )
            ratio = ((image - result.mean).abs() / width.clamp(min=1e-12))[inside]
            ratios.append(_some(ratio, number))
            found.append(one)
            sizes.append(tuple(image.shape[-2:]))
            done += 1
            if progress:
                progress(done, len(tasks) * len(references), task.text)
        ranges = {
            name: (min(f[name] for f in found), max(f[name] for f in found)) for name in found[0]
        }
        entries.append(Entry(
            task=task.text, noise=task.noise, samples=samples, images=len(references),
            size=min(sizes), scale=conformal_scale(ratios, coverage), ranges=ranges, **about,
        ))
    return Calibration(calibration=SCHEMA, coverage=coverage, entries=entries)


def _restored(
    task: Task, number: int, reference: ReferenceImage, method: Method, samples: int,
    steps: int | None, seed: int, device: str, dtype: str,
) -> tuple[Tensor, Restoration, dict[str, float], dict]:
    """Returns a photo, its restoration, its features, and the settings for the entry."""
    image = task.read(reference)
    operator = task.operator([image], [number], seed)
    y = degrade(image.pixels, operator, task.noise, seed, [number])
    typed = method.solver_of(task)
    name, solver = choose_solver(typed, steps, operator, method.model, samples)
    if not solver.stochastic:
        raise SettingError(f"solver {name} draws no samples: choose another one")
    result = restore(
        y, operator, method.model, typed, task.noise, samples, steps, seed=seed, index=[number],
        device=device, dtype=dtype, keep_samples=False,
    )
    one = features(operator, y, predicted_width(result.std), result.misfit)[0]
    about = {
        "operator": signature(operator, operator.image_shape(y.shape)),
        "prior": method.prior or "", "weights": weights_digest(method.model),
        "solver": str(result.methods[0]), "antithetic": result.antithetic,
    }
    return operator.crop_margin(image.pixels), result, one, about


def _some(values: Tensor, seed: int) -> Tensor:
    if len(values) <= KEPT:
        return values
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    return values[order[:KEPT].to(values.device)]
