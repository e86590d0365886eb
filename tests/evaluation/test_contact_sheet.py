"""Contact sheets: each saved image at its place, with its name and score."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from genprior.evaluation.contact_sheet import GAP, LINE, TILE, contact_sheet
from genprior.evaluation.pictures import MEASURED, TRUTH, picture_file

COLOURS = {MEASURED: 40, "hqs": 120, TRUTH: 200}


def record(task: str, method: str, index: int, psnr: float | None = 30.0) -> dict:
    return {"task": task, "method": method, "index": index, "psnr": psnr}


def save(folder: Path, task: str, index: int, size: tuple[int, int] = (8, 8)) -> None:
    for name, level in COLOURS.items():
        path = picture_file(folder, task, name, index)
        path.parent.mkdir(exist_ok=True)
        Image.new("L", size, level).save(path)


def sheet_of(folder: Path, records: list[dict]) -> np.ndarray:
    contact_sheet(records, folder, folder / "sheet.png")
    with Image.open(folder / "sheet.png") as image:
        return np.asarray(image)


def test_measurement_methods_and_reference_stand_in_a_row(tmp_path: Path) -> None:
    save(tmp_path, "denoise", 0)
    save(tmp_path, "denoise", 1)
    sheet = sheet_of(tmp_path, [record("denoise", "hqs", k) for k in (0, 1)])
    title = LINE + 2 * GAP
    assert sheet.shape == (title + 2 * (TILE + LINE + GAP), 3 * (TILE + GAP) - GAP, 3)
    for row in range(2):
        y = title + row * (TILE + LINE + GAP) + LINE
        for column, level in enumerate(COLOURS.values()):
            x = column * (TILE + GAP)
            assert (sheet[y : y + TILE, x : x + TILE] == level).all()
            caption = sheet[y - LINE : y, x : x + TILE]
            assert (caption < 128).any()


def test_shapes_are_kept(tmp_path: Path) -> None:
    save(tmp_path, "denoise", 0, size=(40, 10))
    sheet = sheet_of(tmp_path, [record("denoise", "hqs", 0)])
    top = 2 * LINE + 2 * GAP
    assert (sheet[top : top + TILE // 4, :TILE] == COLOURS[MEASURED]).all()
    assert (sheet[top + TILE // 4 + 1 : top + TILE, :TILE] == 255).all()


def test_a_damaged_image_leaves_the_others(tmp_path: Path) -> None:
    save(tmp_path, "denoise", 0)
    picture_file(tmp_path, "denoise", "hqs", 0).write_bytes(b"\x89PNG damaged")
    sheet = sheet_of(tmp_path, [record("denoise", "hqs", 0, psnr=None)])
    top = 2 * LINE + 2 * GAP
    x = TILE + GAP
    assert (sheet[top : top + TILE, x : x + TILE] == 255).all()
    assert (sheet[top : top + TILE, 2 * x : 2 * x + TILE] == COLOURS[TRUTH]).all()


def test_without_images_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    os.mkfifo(picture_file(tmp_path, "denoise", "hqs", 0))  # reading it would never end
    contact_sheet([record("denoise", "hqs", 0)], tmp_path, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
