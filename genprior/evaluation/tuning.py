"""Tuning of baselines: for each task, the settings with the best mean PSNR on given images."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genprior.api.restoration import degrade, restore
from genprior.core.atomic_files import write_atomic
from genprior.core.errors import PeerError, SettingError
from genprior.core.metrics import psnr
from genprior.evaluation.plan import Method, Plan, Task
from genprior.evaluation.reference_images import ReferenceImage

TUNING = "tuning.json"


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
        SettingError: The settings in the folder were tuned on other images.
    """
    path = out / TUNING
    images = [[truth.name, truth.digest()] for truth in references]
    stored = json.loads(path.read_text()) if path.exists() else {"images": images, "found": {}}
    if stored["images"] != images:
        raise SettingError(
            f"{path} was tuned on {len(stored['images'])} other images: give those "
            f"images, another folder, or --overwrite"
        )
    found = stored["found"]
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
                text = json.dumps(stored, indent=1) + "\n"
                write_atomic(path, lambda file, text=text: file.write(text.encode()))
            solvers[task.text] = replace(method.solver, **found[name])
        methods.append(replace(method, tuned=solvers))
    return replace(plan, methods=methods)


def _best(
    plan: Plan, method: Method, task: Task, references: list[ReferenceImage]
) -> dict[str, Any] | None:
    """Returns the best settings of a baseline; None if it does not support the task."""
    choices = method.choices(task)
    grid = [dict(zip(choices, v, strict=True)) for v in itertools.product(*choices.values())]
    totals = torch.zeros(len(grid))
    for number, truth in enumerate(references):
        picture = task.read(truth)
        operator = task.operator([picture], [number], plan.seeds[0])
        if not method.suits(task, operator, picture.pixels):
            return None
        y = degrade(picture.pixels, operator, task.noise, plan.seeds[0], number)
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
            totals[k] += psnr(x.clamp(0, 1), operator.crop_margin(picture.pixels)).item()
    return grid[int(totals.argmax())]
