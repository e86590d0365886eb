"""Tuning of baselines: for each task, the settings with the best mean PSNR on given images."""

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from genprior.api.restoration import degrade, restore
from genprior.core.atomic_files import write_atomic
from genprior.core.errors import PeerError, SettingError
from genprior.core.metrics import psnr
from genprior.core.records import read_json
from genprior.evaluation.plan import Method, Plan, Task
from genprior.evaluation.reference_images import ReferenceImage

TUNING = "tuning.json"


class _Tuned(msgspec.Struct):
    """Settings that were found: by method and task, on images with these names and checksums."""

    images: list[tuple[str, str]]
    found: dict[str, dict[str, Any]]


def tuned(
    plan: Plan,
    references: list[ReferenceImage],
    out: Path,
    progress: Callable[[str], object] | None = None,
) -> Plan:
    """Returns a plan whose baselines are tuned for each task.

    Settings that were tuned before on the same images are read from the folder.

    Arguments:
        plan: The evaluation.
        references: Images to tune on; they should not be images of the plan.
        out: Folder of the results.
        progress: Called with the name of the method and the task, before each is tuned.

    Raises:
        SettingError: The settings in the folder were tuned on other images, or are damaged.
    """
    path = out / TUNING
    images = [(reference.name, reference.digest()) for reference in references]
    stored = _read(path) if os.path.lexists(path) else _Tuned(images, {})
    if stored.images != images:
        raise SettingError(
            f"{path} was tuned on {len(stored.images)} other images: give those "
            f"images, another folder, or --overwrite"
        )
    found = stored.found
    methods = []
    for method in plan.methods:
        solvers = {}
        for task in plan.tasks:
            if not method.choices(task):
                continue
            name = f"{method.name}, {task.text}"
            if name not in found:
                if progress:
                    progress(name)
                best = _best(plan, method, task, references)
                if best is None:
                    continue
                found[name] = best
                out.mkdir(parents=True, exist_ok=True)
                text = json.dumps(msgspec.to_builtins(stored), indent=1) + "\n"
                write_atomic(path, lambda file, text=text: file.write(text.encode()))
            elif found[name] not in json.loads(json.dumps(_grid(method, task))):
                raise SettingError(
                    f"{path} has settings for {name} that are not among those to try: restore "
                    f"this file, or add --overwrite"
                )
            solvers[task.text] = replace(method.solver, **found[name])
        methods.append(replace(method, tuned=solvers))
    return replace(plan, methods=methods)


def _read(path: Path) -> _Tuned:
    try:
        return read_json(path, _Tuned)
    except ValueError as error:
        raise SettingError(
            f"{path}: {error}: restore this file, choose another folder, or add --overwrite"
        ) from error


def _grid(method: Method, task: Task) -> list[dict[str, Any]]:
    """Returns all combinations of the values to try."""
    choices = method.choices(task)
    return [dict(zip(choices, v, strict=True)) for v in itertools.product(*choices.values())]


def _best(
    plan: Plan, method: Method, task: Task, references: list[ReferenceImage]
) -> dict[str, Any] | None:
    """Returns the best settings of a baseline; None if it does not support the task."""
    grid = _grid(method, task)
    totals = torch.zeros(len(grid))
    for number, reference in enumerate(references):
        image = task.read(reference)
        operator = task.operator([image], [number], plan.seeds[0])
        if not method.suits(task, operator, image.pixels):
            return None
        y = degrade(image.pixels, operator, task.noise, plan.seeds[0], number)
        for k, settings in enumerate(grid):
            solver = replace(method.solver, **settings)
            try:
                x = restore(
                    y, operator, method.model, solver, task.noise, index=number, dtype=plan.dtype,
                    device=plan.device,
                ).image
            except (FloatingPointError, PeerError):
                totals[k] = -torch.inf
                continue
            totals[k] += psnr(x.clamp(0, 1), operator.crop_margin(image.pixels)).item()
    return grid[int(totals.argmax())]
