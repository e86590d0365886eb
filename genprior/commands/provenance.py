"""Provenance notes of an evaluation report: command, weights, machine, tuning, failures."""

import shlex
import sys
from pathlib import Path
from typing import Any


def notes_of(
    data: str, plan: Any, unsuited: list[tuple[str, str]], tuned_on: str | None, records: list,
    foreign: list[tuple[str, str]] | None = None,
) -> dict[str, str]:
    """Returns the notes of a report by their titles.

    Arguments:
        data: Name of the collection of images.
        plan: The `Plan` that was measured.
        unsuited: Pairs (task, method) that were not measured.
        tuned_on: Description of the images that the baselines were tuned on, or None.
        records: Results of the plan.
        foreign: Pairs (task, method) whose prior was trained for another task.
    """
    weights = {m.prior: m.sha256[:12] for m in plan.methods if m.sha256}
    notes = {
        "command": f"`{shlex.join(['genprior', *map(_without_folders, sys.argv[1:])])}`",
        "images": f"{len(plan.references)} of {data}",
        "network": f"{plan.dtype}{', compiled' if plan.compile else ''}; weights (sha256) "
                   f"{', '.join(f'{name} {sha}' for name, sha in weights.items()) or 'none'}",
        "machine": "; and ".join(dict.fromkeys(record["machine"] for record in records)),
    }
    settings = [
        f"{method.name} on {task}: {_settings(solver)}"
        for method in plan.methods for task, solver in method.tuned.items()
    ]
    if tuned_on:
        found = "; ".join(settings) or "There was nothing to tune."
        notes["tuning"] = f"on {tuned_on}, for the best mean PSNR. {found}"
    elif any(method.is_baseline for method in plan.methods):
        notes["tuning"] = "none: the baselines have their default settings or those of the command"
    if unsuited:
        notes["left out"] = "; ".join(f"{name} on {task}" for task, name in unsuited)
    if foreign:
        notes["outside training"] = "; ".join(f"{name} on {task}" for task, name in foreign)
    failed = [r for r in records if "failed" in r]
    if failed:
        notes["failed"] = "; ".join(
            f"{r['method']} on {r['task']} of {r['image']} ({r['failed']})" for r in failed
        )
    return notes


def _without_folders(word: str) -> str:
    """Returns the last part of an absolute path, whose folders mean nothing on other machines."""
    kind, colon, rest = word.partition(":")
    if kind == "torchvision":
        return f"{kind}{colon}{rest.partition(':')[0]}"
    return Path(word).name if Path(word).is_absolute() else word


def _settings(solver: Any) -> str:
    from dataclasses import asdict

    pairs = asdict(solver).items()
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in pairs)
