"""Contact sheet: one image with the results of every method on the first images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from genprior.core.atomic_files import write_atomic
from genprior.core.errors import ImageError
from genprior.evaluation.pictures import MEASURED, TRUTH, picture_file
from genprior.evaluation.results_store import Record
from genprior.io.images import read_bits

TILE, GAP, LINE = 192, 6, 16
LARGEST = 32_000


def contact_sheet(records: Sequence[Record], out: Path, file: Path) -> None:
    """Writes the sheet: one block per task, one row per image.

    A row has the measurement, the result of every method, and the reference. In the place of a
    damaged image is its name.

    Arguments:
        records: Results; those with saved images are shown.
        out: Folder of the results.
        file: The PNG to write; nothing is written without saved images.
    """
    font = ImageFont.load_default(11)
    strips = []
    for task in dict.fromkeys(record["task"] for record in records):
        mine = [r for r in records if r["task"] == task]
        methods = list(dict.fromkeys(r["method"] for r in mine))
        strips.append(_text_strip(task, font))
        for number in dict.fromkeys(r["index"] for r in mine):
            scores = {r["method"]: r for r in reversed(mine) if r["index"] == number}
            tiles = []
            for name in dict.fromkeys((MEASURED, *methods, TRUTH)):
                path = picture_file(out, task, name, number)
                if path.is_file():  # not a pipe, which may never end
                    tiles.append(_tile(path, _caption(name, scores.get(name)), font))
            if tiles:
                strips.append(_row(tiles))
    if any(strip.height > 2 * LINE for strip in strips):
        sheet = _stack(strips)
        write_atomic(file, lambda stream: sheet.save(stream, "PNG"))


def _caption(name: str, record: Record | None) -> str:
    if record is None:
        return name
    score = "" if record.get("psnr") is None else f"  {record['psnr']:.2f} dB"
    return f"{name}{score}"


def _tile(path: Path, caption: str, font: ImageFont.ImageFont) -> Image.Image:
    try:
        colours = read_bits(path)
    except ImageError:  # its scores are in the results, so the others are shown all the same
        colours, caption = np.full((1, 1, 3), 255, np.uint8), f"{path.name} is damaged"
    picture = Image.fromarray(colours.repeat(3, 2) if colours.shape[2] == 1 else colours)
    scale = TILE / max(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    tile = Image.new("RGB", (TILE, TILE + LINE), "white")
    tile.paste(picture.resize(size, resampling), (0, LINE))
    ImageDraw.Draw(tile).text((0, 0), _truncated(caption, font), "black", font)
    return tile


def _truncated(text: str, font: ImageFont.ImageFont) -> str:
    if font.getlength(text) <= TILE:
        return text
    end = text[text.rfind("  "):] if "  " in text else ""
    text = text[: len(text) - len(end)]
    while text and font.getlength(f"{text}...{end}") > TILE:
        text = text[:-1]
    return f"{text}...{end}"


def _text_strip(text: str, font: ImageFont.ImageFont) -> Image.Image:
    strip = Image.new("RGB", (max(TILE, int(font.getlength(text)) + 1), LINE + GAP), "white")
    ImageDraw.Draw(strip).text((0, GAP), text, "black", font)
    return strip


def _row(tiles: list[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (len(tiles) * (TILE + GAP) - GAP, tiles[0].height), "white")
    for k, tile in enumerate(tiles):
        row.paste(tile, (k * (TILE + GAP), 0))
    return row


def _stack(strips: list[Image.Image]) -> Image.Image:
    width = max(strip.width for strip in strips)
    rows = []
    for strip in strips:
        row = Image.new("RGB", (width, strip.height + GAP), "white")
        row.paste(strip, (0, 0))
        rows.append(np.asarray(row))
    return Image.fromarray(np.concatenate(rows)[:LARGEST])
