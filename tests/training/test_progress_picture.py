import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genprior.training.progress_picture import (
    PREVIEWS,
    read_curves,
    read_previews,
    write_progress,
)

LINES = [{"step": 20 * k, "lr": 1e-3, "seconds": k, "network": 1 / k} for k in (1, 2, 4)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def preview(folder: Path, step: int, value: int) -> None:
    folder.mkdir(exist_ok=True)
    colours = np.full((6, 8, 3), (value, 255 - value, 0), np.uint8)
    Image.fromarray(colours).save(folder / f"step-{step:08d}.png")


def test_curves_are_the_losses_of_the_log(log: Path) -> None:
    assert read_curves(log) == {"network": [(20, 1.0), (40, 0.5), (80, 0.25)]}
    with open(log, "a") as file:
        file.write('not JSON\n{"step": 100, "network": "x"}\n{"step": 120, "validation": NaN}\n')
    assert read_curves(log) == {"network": [(20, 1.0), (40, 0.5), (80, 0.25)]}


def test_previews_are_first_and_last_and_spaced(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    for step in range(1, 20):
        preview(folder, step, step)
    (folder / "step-00000010.png").write_bytes(b"damaged")
    (folder / "notes.png").write_bytes(b"other")
    found = read_previews(folder)
    steps = [step for step, _ in found]
    assert steps[0] == 1 and steps[-1] == 19 and len(steps) in (PREVIEWS - 1, PREVIEWS)
    assert all(image.getpixel((0, 0)) == (step, 255 - step, 0) for step, image in found)


def test_the_picture_shows_curves_and_previews(log: Path, tmp_path: Path) -> None:
    preview(tmp_path / "samples", 20, 200)
    out = tmp_path / "progress.png"
    assert write_progress(log, tmp_path / "samples", out)
    drawn = np.asarray(Image.open(out))
    assert (drawn == (200, 55, 0)).all(axis=2).sum() == 6 * 8  # the preview, pixel by pixel
    assert (drawn == (0x3B, 0x6F, 0xB6)).all(axis=2).sum() > 300  # the curve


def test_nothing_is_written_without_anything_to_draw_or_through_a_link(
    log: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "progress.png", tmp_path / "other"
    assert not write_progress(tmp_path / "none", tmp_path / "samples", out) and not out.exists()
    other.write_text("mine")
    out.symlink_to(other)
    assert not write_progress(log, tmp_path / "samples", out) and other.read_text() == "mine"
