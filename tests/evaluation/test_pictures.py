"""Paths of saved images: one for each task, method and image, none outside the folder."""

from itertools import product
from pathlib import Path

from genprior.evaluation.pictures import MEASURED, TRUTH, picture_file, picture_files

TASKS = ("inpaint:mask=random=0.5", "a/../b", "a", "")
NAMES = (TRUTH, MEASURED, "hqs", "../../hqs", "h\udcffqs")


def test_every_image_has_its_own_path_in_the_folder(tmp_path: Path) -> None:
    paths = {picture_file(tmp_path, t, n, k) for t, n, k in product(TASKS, NAMES, (0, 1, 10**6))}
    assert len(paths) == len(TASKS) * len(NAMES) * 3
    assert all(path.parent == tmp_path / "pictures" for path in paths)


def test_a_name_cannot_move_into_the_task(tmp_path: Path) -> None:
    assert picture_file(tmp_path, "a", "bc", 0) != picture_file(tmp_path, "ab", "c", 0)


def test_only_saved_images_are_listed(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    saved = {picture_file(tmp_path, "a", "b", k) for k in (3, 123456)}
    for path in [*saved, tmp_path / "pictures" / "mine.png", tmp_path / "00001-0.png"]:
        path.touch()
    assert set(picture_files(tmp_path)) == saved
