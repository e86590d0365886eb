"""Evaluation report: a table for the terminal, Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from genprior.core.environment import environment
from genprior.evaluation.scores import SCORES, definitions
from genprior.evaluation.summary import Mean, Row

DIGITS = {"psnr": 2, "psnr_best": 2, "ssim": 4, "lpips": 4, "misfit": 3, "coverage": 3, "crps": 4,
          "coverage50": 3, "coverage80": 3, "coverage95": 3, "width": 4,
          "bias": 2, "std": 3, "w2": 2,
          "hole_psnr": 2, "patch_distance": 4, "gradient": 2, "jump": 2,
          "seconds": 2, "nfe": 0, "products": 0, "memory": 0}
WITH_INTERVAL = ("psnr", "ssim", "lpips", "coverage", "crps", "hole_psnr")
HEADS = {"psnr": "PSNR, dB", "psnr_best": "best sample, dB", "ssim": "SSIM", "lpips": "LPIPS",
         "crps": "CRPS",
         "coverage50": "50 %", "coverage80": "80 %", "coverage95": "95 %", "w2": "W2",
         "hole_psnr": "PSNR in holes, dB", "patch_distance": "patch distance", "nfe": "NFE",
         "products": "backward", "seconds": "s", "memory": "MB"}
INTERVAL = ("mean over images of each image's mean over seeds; after the ± half the width of the "
            "95 % confidence interval over images (Student's t)")
BOLD = ("The largest PSNR of each task is in bold, among the methods with results for the most "
        "images.")
GAIN = ("PSNR minus the PSNR of the best baseline of the task, as mean over images of the "
        "difference for each image, with its 95 % confidence interval")


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as a text table for the terminal."""
    heads, cells = _cells(rows)
    widths = [max(len(line[k]) for line in [heads, *cells]) for k in range(len(heads))]
    lines, last = [], None
    for line in [heads, *cells]:
        shown = ["" if k == 0 and line[0] == last else cell for k, cell in enumerate(line)]
        last = line[0]
        lines.append("  ".join(
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(shown, widths, strict=True))
        ).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Row], samples: int, notes: Mapping[str, str]) -> str:
    """Returns the report: the table, definitions of the numbers, and the settings.

    Arguments:
        rows: See `summarise`.
        samples: Number of posterior samples, for stochastic methods.
        notes: Settings and remarks, by title.
    """
    heads, cells = _cells(rows)
    lines = ["# Evaluation", "", _line(heads), _line(["---"] * len(heads))]
    best = _best(rows)
    for row, line in zip(rows, cells, strict=True):
        if row in best:
            line = [*line[:3], f"**{line[3]}**", *line[4:]]
        lines.append(_line(line))
    lines += ["", BOLD, "", "## What the numbers mean", ""]
    lines.append(f"- numbers: {INTERVAL}")
    names = _names(rows)
    for name, meaning in definitions(names, samples).items():
        lines.append(f"- {HEADS.get(name, name)}: {meaning}")
    if any(row.gain for row in rows):
        lines.append(f"- gain: {GAIN}")
    lines += ["", "## How they were measured", ""]
    lines += [f"- {title}: {text}" for title, text in notes.items()]
    return "\n".join(lines) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """Returns CSV with a line per task and method; means and half intervals are not rounded."""
    file = io.StringIO()
    names = _names(rows)
    columns = [f"{name}{end}" for name in names for end in ("", " ±")]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["task", "method", "images", *columns, "gain", "gain ±", "against"])
    for row in rows:
        means = [row.scores.get(name) for name in names] + [row.gain]
        numbers = [x for mean in means for x in ((mean.value, mean.half) if mean else ("", ""))]
        writer.writerow([row.task, row.label, row.scores["psnr"].images, *numbers, row.against])
    return file.getvalue()


def as_json(rows: Sequence[Row], samples: int, notes: Mapping[str, str]) -> str:
    """Returns the content of the report as JSON."""
    about = {**definitions(_names(rows), samples), "mean": INTERVAL, "gain": GAIN}
    record = {"rows": [asdict(row) for row in rows], "definitions": about, "notes": dict(notes),
              **environment()}
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def _names(rows: Sequence[Row]) -> list[str]:
    return [name for name in SCORES if any(name in row.scores for row in rows)]


def _best(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with the largest PSNR of each task, among those with the most images."""
    best = []
    for task in dict.fromkeys(row.task for row in rows):
        mine = [row for row in rows if row.task == task]
        images = max(row.scores["psnr"].images for row in mine)
        full = [row for row in mine if row.scores["psnr"].images == images]
        largest = max(map(_psnr, full))
        best += [row for row in full if _psnr(row) == largest]
    return best


def _psnr(row: Row) -> float:
    value = row.scores["psnr"].value
    return math.inf if value is None else value


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Returns the column heads and the rows of the table, as text."""
    names = _names(rows)
    gains = any(row.gain for row in rows)
    heads = ["task", "method", "images", *(HEADS.get(name, name) for name in names)]
    cells = []
    for row in rows:
        line = [row.task, row.label, str(row.scores["psnr"].images)]
        line += [_text(row.scores.get(name), DIGITS[name], name in WITH_INTERVAL)
                 for name in names]
        if gains:
            line.append(_text(row.gain, 2, True, "+"))
        cells.append(line)
    return heads + ["gain, dB"] * gains, cells


def _text(mean: Mean | None, digits: int, interval: bool, sign: str = "") -> str:
    if mean is None:
        return ""
    if mean.value is None:  # infinite PSNR: no error; the gain is undefined
        return "" if sign else "inf"
    half = f" ± {mean.half:.{digits}f}" if interval and mean.half is not None else ""
    return f"{mean.value:{sign}.{digits}f}{half}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
