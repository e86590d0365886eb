"""Reliability curves and rank histograms of posterior samples, as an image.

A point of the curve is the share of pixels whose reference lies in a central interval of the
samples, over the share that exact samples would have. Calibrated samples are on the diagonal,
samples that are too narrow below it, and samples that are too wide above it.

References:
    Probabilistic Forecasts, Calibration and Sharpness, Gneiting et al., 2007.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from genprior.core.atomic_files import write_atomic
from genprior.evaluation.results_store import Record
from genprior.evaluation.summary import mean_ranks

SIDE, MARGIN, LINE, LARGEST = 260, 44, 16, 32_000
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")


def curve(ranks: Sequence[float]) -> list[tuple[float, float]]:
    """Returns (nominal, observed) coverage of all central intervals, from (0, 0) to (1, 1).

    >>> curve([0.2, 0.3, 0.3, 0.2])
    [(0.0, 0.0), (0.5, 0.6), (1.0, 1.0)]
    """
    count = len(ranks)  # K + 1
    inner = [
        ((count - 2 * a) / count, round(sum(ranks[a : count - a]), 12))
        for a in range((count - 1) // 2, 0, -1)
    ]
    return [(0.0, 0.0), *inner, (1.0, 1.0)]


def reliability(records: Sequence[Record], file: Path) -> bool:
    """Writes a PNG with a row for each task: the curves, and the rank histograms, of all methods.

    Arguments:
        records: Results of an evaluation.
        file: The file; nothing is written if no result has several samples.

    Returns:
        Whether the file was written.
    """
    rows = []
    for task in dict.fromkeys(record["task"] for record in records):
        mine = [record for record in records if record["task"] == task]
        methods = {
            name: ranks
            for name in dict.fromkeys(record["method"] for record in mine)
            if (ranks := mean_ranks([r for r in mine if r["method"] == name]))
        }
        if methods:
            rows.append(_row(task, methods))
    if not rows:
        return False
    width, height = max(row.width for row in rows), sum(row.height for row in rows)
    sheet = Image.new("RGB", (width, min(height, LARGEST)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    write_atomic(file, lambda stream: sheet.save(stream, "PNG"))
    return True


def _row(task: str, methods: dict[str, list[float]]) -> Image.Image:
    font = ImageFont.load_default(11)
    height = SIDE + 2 * MARGIN + LINE * (1 + len(methods))
    row = Image.new("RGB", (2 * (SIDE + 2 * MARGIN), height), "white")
    draw = ImageDraw.Draw(row)
    draw.text((4, 2), task, "black", font)
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(methods)}
    for k, name in enumerate(methods):
        draw.text((4, LINE * (k + 1)), name, colours[name], font)
    top = LINE * len(methods) + MARGIN
    _curves(draw, (MARGIN, top), methods, colours, font)
    _histograms(draw, (3 * MARGIN + SIDE, top), methods, colours, font)
    return row


def _frame(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], titles: tuple[str, str],
    font: ImageFont.ImageFont,
) -> None:
    left, top = corner
    draw.rectangle((left, top, left + SIDE, top + SIDE), outline="black")
    draw.text((left, top - LINE), titles[1], "black", font)
    draw.text((left + SIDE / 2, top + SIDE + 18), titles[0], "black", font, anchor="ma")


def _curves(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], methods: dict[str, list[float]],
    colours: dict[str, str], font: ImageFont.ImageFont,
) -> None:
    left, top = corner
    _frame(draw, corner, ("coverage of exact samples", "observed coverage"), font)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return left + SIDE * point[0], top + SIDE * (1 - point[1])

    for share in (0.0, 0.5, 0.8, 0.9, 1.0):
        draw.text((at((share, 0))[0], top + SIDE + 4), f"{share:g}", "black", font, anchor="ma")
        draw.text((left - 4, at((0, share))[1]), f"{share:g}", "black", font, anchor="rm")
        draw.line((*at((share, 0)), *at((share, 1))), "#dddddd")
        draw.line((*at((0, share)), *at((1, share))), "#dddddd")
    draw.line((*at((0, 0)), *at((1, 1))), "#888888")
    for name, ranks in methods.items():
        points = [at(point) for point in curve(ranks)]
        draw.line(points, colours[name], 2)
        for x, y in points[1:-1]:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colours[name])


def _histograms(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], methods: dict[str, list[float]],
    colours: dict[str, str], font: ImageFont.ImageFont,
) -> None:
    left, top = corner
    _frame(draw, corner, ("rank of the reference", "share of pixels, x (samples + 1)"), font)
    highest = max(1.5, *(max(ranks) * len(ranks) for ranks in methods.values()))
    level = top + SIDE * (1 - 1 / highest)
    draw.line((left, level, left + SIDE, level), "#888888")
    draw.text((left - 4, level), "1", "black", font, anchor="rm")
    for name, ranks in methods.items():
        step, points = SIDE / len(ranks), []
        for k, share in enumerate(ranks):
            height = top + SIDE * (1 - share * len(ranks) / highest)
            points += [(left + k * step, height), (left + (k + 1) * step, height)]
        draw.line(points, colours[name], 2)
