"""Picture of a training: its losses over the steps, and samples of the prior as they improve."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from genprior.core.atomic_files import write_atomic
from genprior.core.records import parse_json, read_regular
from genprior.io.images import read_bits

PICTURE = "progress.png"
# What a line of the log tells besides losses.
FACTS = ("step", "seconds", "lr", "images_per_second")
CURVE, THUMBNAIL, GAP, TEXT = (300, 170), 150, 12, 14
PREVIEWS, MAX_PIXELS = 6, 2**24
INK, LINE, FRAME = "#222222", "#3b6fb6", "#bbbbbb"

Curve = list[tuple[float, float]]


def write_progress(log: Path, samples: Path, picture: Path) -> bool:
    """Draws the losses in a log, and some of the previews, into a PNG file.

    Damaged lines and previews are left out. A link is not followed, as it may lead elsewhere.

    Arguments:
        log: The log of the run, JSON lines with a "step".
        samples: Folder of the previews, `step-*.png`.
        picture: File to write.

    Returns:
        Whether the file was written; it is not if there is nothing to draw.
    """
    if picture.is_symlink():
        return False
    curves = read_curves(log)
    previews = read_previews(samples)
    if not curves and not previews:
        return False
    sheet = _draw(curves, previews)
    write_atomic(picture, lambda file: sheet.save(file, "PNG"))
    return True


def read_curves(log: Path) -> dict[str, Curve]:
    """Returns the points (step, value) of each loss in a log, by the name of the loss."""
    try:
        lines = read_regular(log).split(b"\n") if not log.is_symlink() else []
    except (OSError, ValueError):
        lines = []
    curves: dict[str, Curve] = {}
    for line in lines:
        try:
            values = parse_json(line, dict[str, float])
        except (ValueError, json.JSONDecodeError):
            continue
        for name, value in values.items():
            if name not in FACTS and "step" in values and math.isfinite(value):
                curves.setdefault(name, []).append((values["step"], value))
    return {name: curve for name, curve in curves.items() if len(curve) > 1}


def read_previews(folder: Path) -> list[tuple[int, Image.Image]]:
    """Returns up to `PREVIEWS` previews with their steps: first and last, evenly spaced."""
    paths = sorted(path for path in folder.glob("step-*.png") if path.stem[5:].isdecimal())
    count = min(len(paths), PREVIEWS)
    chosen = [paths[round(k * (len(paths) - 1) / max(count - 1, 1))] for k in range(count)]
    found = []
    for path in chosen:
        try:
            values = read_bits(path, MAX_PIXELS)
        except (OSError, ValueError):
            continue
        image = Image.fromarray(values.squeeze(2) if values.shape[2] == 1 else values[..., :3])
        image = image.convert("RGB")
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        found.append((int(path.stem[5:]), image))
    return found


def _draw(
    curves: Mapping[str, Curve], previews: Sequence[tuple[int, Image.Image]]
) -> Image.Image:
    """Draws a row of curves above a row of previews."""
    width = max(len(curves) * (CURVE[0] + GAP), len(previews) * (THUMBNAIL + GAP)) + GAP
    top = CURVE[1] + 2 * TEXT + 2 * GAP if curves else 0
    height = top + (THUMBNAIL + TEXT + 2 * GAP if previews else 0)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    for column, (name, curve) in enumerate(curves.items()):
        _draw_curve(draw, font, GAP + column * (CURVE[0] + GAP), name, curve)
    for column, (step, image) in enumerate(previews):
        left = GAP + column * (THUMBNAIL + GAP)
        draw.text((left, top + GAP / 2), f"samples, step {step}", INK, font)
        sheet.paste(image, (left, top + GAP + TEXT))
    return sheet


def _draw_curve(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, left: int,
    name: str, curve: Curve,
) -> None:
    """Draws one loss over the steps in a frame, with its range and its last value."""
    top, (width, height) = GAP + TEXT, CURVE
    steps, values = zip(*curve, strict=True)
    low, high = min(values), max(values)
    across = width / max(steps[-1] - steps[0], 1e-12)
    up = height / max(high - low, 1e-12)
    points = [(left + (step - steps[0]) * across, top + (high - value) * up)
              for step, value in curve]
    draw.rectangle((left, top, left + width, top + height), outline=FRAME)
    draw.line(points, LINE, width=2)
    draw.text((left, GAP / 2), f"{name}: {low:.4g} to {high:.4g}, now {values[-1]:.4g}", INK, font)
    draw.text((left, top + height + 2), f"steps {steps[0]:g} to {steps[-1]:g}", INK, font)
