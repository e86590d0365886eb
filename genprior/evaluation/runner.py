"""Evaluation of priors x tasks x solvers x seeds on a collection of images, resumable per image.

Image i of the collection gets noise seeded by (seed, i) and a random mask seeded by (seed + 1, i).
Its results do not depend on the other images, methods or tasks, nor on the number of processes.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.api.estimated_priors import estimate_prior
from genprior.api.factory import choose_solver, solver_for_task
from genprior.api.restoration import degrade, restore
from genprior.core.devices import pick_device
from genprior.core.distributed import Ranks
from genprior.core.environment import machine
from genprior.core.errors import ImageError, PeerError, SettingError
from genprior.core.metrics import finite, psnr
from genprior.evaluation.exact_posterior import exact_scores
from genprior.evaluation.pictures import MEASURED, TRUTH, picture_file
from genprior.evaluation.plan import Method, Plan, Task, not_suited
from genprior.evaluation.reference_images import ReferenceImage
from genprior.evaluation.resources import ResourceMeter
from genprior.evaluation.results_store import KEYS, Record, Result, ResultsStore
from genprior.evaluation.scores import Perceptual, score
from genprior.inverse.base import Solver
from genprior.inverse.baselines.base import Baseline
from genprior.io.images import ImageFile, write_image
from genprior.operators.base import Operator


@dataclass(frozen=True)
class _Unit:
    """A unit of work: one method, task and seed, on up to `Plan.batch` images."""

    task: Task
    method: Method
    seed: int
    references: tuple[tuple[int, ReferenceImage], ...]


def run(
    plan: Plan,
    out: Path,
    ranks: Ranks | None = None,
    progress: Callable[[int, int, str], object] | None = None,
) -> list[Record]:
    """Runs an evaluation, or resumes it.

    Arguments:
        plan: The evaluation.
        out: Folder of the results; an interrupted evaluation in it is resumed.
        ranks: The processes that share the work.
        progress: Called after each unit of work with (results done, results in all, its name).

    Returns:
        The results of the plan, one dictionary for each image, task, seed and method. If the image
        cannot be read, or the method diverged or crashed, the dictionary has the error in "failed"
        and no scores.

    Raises:
        SettingError: The folder holds results of other settings, or no method supports a task.
        ImageError: No image can be read, or one cannot be restored with these settings.
    """
    ranks = ranks or Ranks()
    device = pick_device(ranks.device(plan.device), torch.empty(0))
    methods = [_on_device(method, device) for method in plan.methods]
    plan = replace(plan, methods=methods, device=str(device))
    perceptual = Perceptual(device) if plan.lpips else None
    store = ResultsStore(out, KEYS, Result)
    if ranks.first:
        store.open(plan.facts())
    ranks.wait()
    done = store.read()
    units = list(_units(plan, set(done)))
    ranks.wait()
    keys = [key for unit in _units(plan, set()) for key in _keys(unit)]
    count = sum(key in done for key in keys)
    for unit in shared(units, ranks):
        records = _measure(plan, unit, out, device, perceptual)
        store.append(records, ranks.rank)
        count += len(records) * (ranks.world if ranks.world > 1 else 1)
        if progress:
            progress(min(count, len(keys)), len(keys), f"{unit.task.text}: {unit.method.name}")
    ranks.wait()
    if ranks.first:
        store.merge()
    ranks.wait()
    records = store.read()
    return [records[key] for key in keys]


def shared(units: list[_Unit], ranks: Ranks) -> list[_Unit]:
    """Returns the units of one process.

    Several processes share the units in shuffled order: in the original order, one process could
    get all units of one slow method.
    """
    if ranks.world > 1:
        random.Random(0).shuffle(units)
    return ranks.share(units)


def _units(plan: Plan, done: set[tuple]) -> Iterator[_Unit]:
    """Yields the units without results, image by image.

    In this order an interrupted evaluation has results of all methods for the same images.
    """
    unsuited = set(not_suited(plan))
    for start in range(0, len(plan.references), plan.batch):
        references = plan.references[start : start + plan.batch]
        for task in plan.tasks:
            for seed in plan.seeds:
                for method in plan.methods:
                    if (task.text, method.name) in unsuited:
                        continue
                    missing = tuple(
                        (number, reference) for number, reference in references
                        if (number, task.text, seed, method.name) not in done
                    )
                    if missing:
                        yield _Unit(task, method, seed, missing)


def _keys(unit: _Unit) -> list[tuple]:
    return [(number, unit.task.text, unit.seed, unit.method.name) for number, _ in unit.references]


def _measure(
    plan: Plan, unit: _Unit, out: Path, device: torch.device, perceptual: Perceptual | None
) -> list[Record]:
    """Returns the results of one unit; images of one size are restored together."""
    groups, unreadable = _same_size(unit)
    records = [
        _identity(plan, unit, number, reference) | {"failed": str(error)}
        for number, reference, error in unreadable
    ]
    for group in groups:
        numbers, references, images = map(list, zip(*group, strict=True))
        try:
            records += _restore(plan, unit, images, numbers, references, out, device, perceptual)
        except (SettingError, ImageError):
            raise
        except (FloatingPointError, PeerError) as error:  # the other methods continue
            records += [
                _identity(plan, unit, number, reference) | {"failed": str(error)}
                for number, reference, _ in group
            ]
        except ValueError as error:
            names = ", ".join(reference.name for reference in references)
            raise ImageError(f"{names}: {unit.method.name}: {error}") from error
    return records


def _restore(
    plan: Plan,
    unit: _Unit,
    images: list[ImageFile],
    numbers: Sequence[int],
    references: Sequence[ReferenceImage],
    out: Path,
    device: torch.device,
    perceptual: Perceptual | None,
) -> list[Record]:
    task, method = unit.task, unit.method
    reference = torch.cat([image.pixels for image in images])
    operator = task.operator(images, numbers, unit.seed)
    y = degrade(reference, operator, task.noise, unit.seed, list(numbers))
    model, name, solver, steps, samples = _resolve(plan, unit, operator, y)
    with ResourceMeter(device) as meter:
        result = restore(
            y, operator, model, solver, task.noise, samples, steps, seed=unit.seed,
            index=list(numbers), device=str(device), dtype=plan.dtype, quality=plan.quality,
        )
    reference = operator.crop_margin(reference)
    scores = score(result, reference, perceptual, _hole(operator, reference))
    if result.samples is not None and not operator.is_linear:
        for i, one in enumerate(scores):
            truth = reference[i].clamp(0, 1).expand_as(result.samples[i])
            one["psnr_best"] = finite(psnr(result.samples[i].clamp(0, 1), truth).max())
    if result.samples is not None and model is not None and not isinstance(task.noise, str):
        for i, number in enumerate(numbers):
            scores[i] |= exact_scores(
                result.samples[i], y[i : i + 1], operator.select([i]), model, task.noise, number
            )
    first = plan.references[: plan.show] if unit.seed == plan.seeds[0] else ()
    shown = {number for number, _ in first}
    records = []
    for i, (number, source) in enumerate(zip(numbers, references, strict=True)):
        if number in shown:
            pieces = {TRUTH: reference, MEASURED: y, method.name: result.image}
            for piece, batch in pieces.items():
                _save_image(picture_file(out, task.text, piece, number), batch[i : i + 1])
        records.append({
            **_identity(plan, unit, number, source),
            "solver": None if method.is_baseline else name,
            "samples": samples, **scores[i], "seconds": meter.seconds / len(numbers),
            "nfe": result.evaluations[i] * samples,
            "products": None if method.is_baseline else result.products * samples,
            "memory": meter.memory and meter.memory / 2**20,
        })
    return records


def _hole(operator: Operator, reference: Tensor) -> Tensor | None:
    """Returns the pixels of which no channel was measured, (B, 1, H, W), for masks."""
    if not operator.is_mask or operator.is_identity or not operator.measures_images:
        return None
    return operator.mask_unmeasured(torch.ones_like(reference))[:, :1] == 0


def _identity(plan: Plan, unit: _Unit, number: int, source: ReferenceImage) -> Record:
    """Returns the entries that identify a result, and the machine that computed it."""
    return {
        "index": number, "image": source.name, "task": unit.task.text, "seed": unit.seed,
        "method": unit.method.name, "prior": unit.method.prior,
        "baseline": unit.method.is_baseline, "device": plan.device, "machine": machine(),
    }


def _save_image(path: Path, image: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 4 and image.shape[1] in (1, 3):
        write_image(path, image.clamp(0, 1).cpu())


def _resolve(
    plan: Plan, unit: _Unit, operator: Operator, y: Tensor
) -> tuple[nn.Module | None, str, str | Solver, int | None, int]:
    """Returns the prior, the name of the solver, and `solver`, `steps` and `samples` to use."""
    method, model = unit.method, unit.method.model
    solver = method.solver_of(unit.task)
    if method.prior is not None and model is None:
        keep = operator.mask_unmeasured(torch.ones_like(y))[:, :1]
        model = estimate_prior(method.prior, y, keep)
    if isinstance(solver, Baseline):
        return model, method.name, solver, None, plan.samples if solver.stochastic else 1
    samples = plan.samples
    if solver != "auto" and not choose_solver(solver, None, operator, model, 1)[1].stochastic:
        samples = 1
    _, chosen = choose_solver(solver, None, operator, model, samples)
    typed = isinstance(solver, Solver)  # an object has its own number of steps
    has_steps = "steps" in {field.name for field in fields(chosen)}
    steps = None if typed or not has_steps else plan.steps
    name, solver, steps = solver_for_task(
        solver, steps, operator, model, samples, unit.task.kind, method.prior
    )
    return model, name, solver, steps, samples


def _on_device(method: Method, device: torch.device) -> Method:
    return method if method.model is None else replace(method, model=method.model.to(device))


def _same_size(
    unit: _Unit,
) -> tuple[
    list[list[tuple[int, ReferenceImage, ImageFile]]], list[tuple[int, ReferenceImage, ImageError]]
]:
    """Reads the images and groups them by size.

    Returns:
        The groups, of one image each if each image has its own prior; and the images that cannot
        be read, with the error.
    """
    own_prior = unit.method.prior is not None and unit.method.model is None
    groups: dict[Any, list[tuple[int, ReferenceImage, ImageFile]]] = {}
    unreadable = []
    for number, reference in unit.references:
        try:
            image = unit.task.read(reference)
        except ImageError as error:
            unreadable.append((number, reference, error))
        else:
            key = number if own_prior else image.pixels.shape
            groups.setdefault(key, []).append((number, reference, image))
    return list(groups.values()), unreadable
