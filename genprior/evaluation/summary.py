"""Summary of results: means with 95 % confidence intervals per task and method."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student

from genprior.evaluation.results_store import Record
from genprior.evaluation.scores import SCORES

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """Mean over images of each image's mean over seeds.

    Arguments:
        value: The mean; None if the value of an image is infinite.
        half: Half the width of its 95 % interval (Student's t); None for a single image.
        images: Number of images.
    """

    value: float | None
    half: float | None
    images: int


@dataclass(frozen=True)
class Row:
    """Scores of a method on a task.

    Arguments:
        task: The task, as the user typed it.
        method: The method, as the user typed it.
        label: The method, with "auto" replaced by the chosen solver.
        baseline: Whether the method is a baseline.
        scores: Means by the name of the score.
        gain: Mean over images of its PSNR minus that of the best baseline; None without baselines,
            and for baselines.
        against: The best baseline of the task: the one with the largest mean PSNR, among those
            with results for the most images.
        ranks: Mean rank histogram, see `genprior.core.metrics.rank_histogram`; None without
            samples.
    """

    task: str
    method: str
    label: str
    baseline: bool
    scores: dict[str, Mean]
    gain: Mean | None = None
    against: str | None = None
    ranks: list[float] | None = None


def summarise(records: Sequence[Record]) -> list[Row]:
    """Returns rows in the order of tasks and methods in the records, without failed records."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if "failed" in record:
            continue
        groups.setdefault((record["task"], record["method"]), []).append(record)
    rows = []
    for task in dict.fromkeys(task for task, _ in groups):
        mine = {method: group for (other, method), group in groups.items() if other == task}
        psnrs = {method: _per_image(group, "psnr") for method, group in mine.items()}
        best = _best_baseline(mine, psnrs)
        for method, group in mine.items():
            gain = against = None
            if best is not None and not group[0]["baseline"]:
                both = [i for i in psnrs[method] if i in psnrs[best]]
                gain = _mean([_difference(psnrs[method][i], psnrs[best][i]) for i in both])
                against = best
            scores = {}
            for name in SCORES:
                values = _per_image(group, name)
                if values:
                    scores[name] = _mean(list(values.values()))
            baseline = group[0]["baseline"]
            label, ranks = _label(group), mean_ranks(group)
            rows.append(Row(task, method, label, baseline, scores, gain, against, ranks))
    return rows


def mean_ranks(records: Sequence[Record]) -> list[float] | None:
    """Returns the mean rank histogram of results with equally many samples; None if none has one.
    """
    found = [record["ranks"] for record in records if record.get("ranks")]
    if not found:
        return None
    most = max(map(len, found))
    return [fmean(values) for values in zip(*(r for r in found if len(r) == most), strict=True)]


def _per_image(group: list[Record], name: str) -> dict[int, float | None]:
    """Returns the mean of a score over seeds, by image, without images that lack the score."""
    values: dict[int, list[Any]] = {}
    for record in group:
        if name in record and (name == "psnr" or record[name] is not None):
            values.setdefault(record["index"], []).append(record[name])
    return {i: None if None in v else fmean(v) for i, v in values.items()}


def _best_baseline(
    groups: dict[str, list[Record]], psnrs: dict[str, dict[int, float | None]]
) -> str | None:
    baselines = [method for method, group in groups.items() if group[0]["baseline"]]
    most = max((len(psnrs[method]) for method in baselines), default=0)
    means = {
        method: fmean(value if value is not None else math.inf for value in psnrs[method].values())
        for method in baselines if len(psnrs[method]) == most
    }
    return max(means, key=means.get) if means else None


def _mean(values: list[float | None]) -> Mean:
    if None in values or not values:
        return Mean(None, None, len(values))
    if len(values) == 1:
        return Mean(values[0], None, 1)
    quantile = student.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)
    return Mean(fmean(values), float(quantile) * stdev(values) / len(values) ** 0.5, len(values))


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _label(group: list[Record]) -> str:
    """Returns the method as the user typed it, with "auto" replaced by the chosen solver."""
    method, prior = group[0]["method"], group[0]["prior"]
    if method != f"{prior} auto":
        return method
    return f"{prior} {'/'.join(sorted({record['solver'] for record in group}))}"
