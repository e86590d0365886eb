"""Files of the user are neither overwritten nor mistaken for outputs."""

import hashlib
import io
import json
import os
import struct
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image
from shell import SIZE, genprior, levels, photo, refused, save_photo, sidecar, snapshot, succeed

from genprior.cli import main
from genprior.core.atomic_files import sweep
from genprior.io.images import image_files

MASK = ["--mask", "box=3x4"]
TASK = ["--task", "superres:factor=2", "--prior", "none", "--baseline", "bicubic"]


@pytest.fixture
def quick(weights: Path) -> list[object]:
    return ["--prior", weights, "--solver", "hqs", "--steps", 1]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    save_photo(tmp_path / "photos" / "a.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("name", ["settings.json", "tuning.json", "report.md"])
def test_an_evaluation_takes_no_folder_of_something_else(
    photos: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    before = snapshot(out)
    code, message = refused("evaluate", photos, "-o", out, *TASK, "--overwrite")
    assert code == 2 and f"{name} was not written by genprior evaluate: choose" in message
    assert snapshot(out) == before
    code, message = refused("evaluate", photos, "-o", photos, *TASK)
    assert code == 2 and "holds the images: choose another -o" in message


def test_an_evaluation_that_starts_anew_forgets_its_own_pictures_only(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "pictures").mkdir(parents=True)
    save_photo(out / "pictures" / "holiday.png")
    succeed("evaluate", photos, "-o", out, *TASK, "-q")
    assert len(list((out / "pictures").iterdir())) == 4
    result = succeed("evaluate", photos, "-o", out, *TASK, "--overwrite", "--show", 0)
    assert [p.name for p in (out / "pictures").iterdir()] == ["holiday.png"]
    assert "report.csv" in result.stdout and "contact.png" not in result.stdout


@pytest.mark.parametrize(("refuses", "number"), [
    ("fsync", 0), ("fsync", 1), ("fsync", 2), ("replace", 0),
])
def test_a_result_that_cannot_be_written_leaves_the_older_one(
    photos: Path, tmp_path: Path, quick: list, monkeypatch: pytest.MonkeyPatch, refuses: str,
    number: int,
) -> None:
    out = tmp_path / "out.png"
    for name in ("out.png", "out.json", "out.panel.png"):
        (tmp_path / name).write_text(f"my {name}")
    before = snapshot(tmp_path)
    calls, original = count(), getattr(os, refuses)

    def fail(*arguments: object) -> None:
        if next(calls) == number:
            raise OSError(28, "No space left on device")
        original(*arguments)

    words = ["inpaint", photos / "a.png", *MASK, *quick, "-o", out, "--overwrite"]
    words += ["--save", "panel"]
    with monkeypatch.context() as patch:  # fails for the panel, the image or the sidecar
        patch.setattr(os, refuses, fail)
        assert "no space left" in refused(*words)[1].lower()
    assert snapshot(tmp_path) == before
    succeed(*words)
    assert levels(out).shape == (*SIZE, 3) and sidecar(out)["task"] == "inpaint"


def test_results_of_another_task_are_not_replaced(photos: Path, quick: list) -> None:
    succeed("denoise", photos, "--noise", 0.1, *quick, "-q")
    before = snapshot(photos)
    code, message = refused("inpaint", photos, *MASK, *quick, "--skip-existing")
    assert code == 3 and "a.genprior.png exists: add --overwrite" in message
    assert snapshot(photos) == before
    (photos / "a.genprior.json").unlink()  # as a killed run leaves it
    succeed("inpaint", photos, *MASK, *quick, "--skip-existing", "-q")
    assert sidecar(photos / "a.genprior.png")["task"] == "inpaint"


def test_masks_are_not_replaced_and_are_no_pictures(
    photos: Path, tmp_path: Path, quick: list
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros(SIZE, np.uint8)
    mask[4:9, 5:9] = 255
    Image.fromarray(mask).save(masks / "a.png")
    words = ["inpaint", photos / "a.png", "--mask", masks, *quick]
    _, message = refused(*words, "-o", masks / "a.png", "--overwrite")
    assert "a.png is an input: choose another -o" in message
    assert np.array_equal(levels(masks / "a.png"), mask)
    for own in (photos, photos / "a.png"):
        code, message = refused("inpaint", photos, "--mask", own, *quick)
        assert code == 2 and "a.png is the image itself: give its mask" in message
    succeed(*words, "-q")


@pytest.mark.parametrize("words", [
    ["inpaint", "@", "--mask", ""], ["denoise", ""], ["denoise", "@", "-o", ""],
    ["deblur", "@", "--kernel", ""], ["sample", "-o", ""],
])
def test_an_empty_word_is_not_the_current_folder(photos: Path, words: list) -> None:
    code, message = refused(*(word.replace("@", str(photos / "a.png")) for word in words))
    assert code == 2
    assert "the path is empty: give a name" in message or "'' is not a file" in message


@pytest.mark.parametrize("task", ["deblur", "inpaint", "superres"])
def test_a_measurement_keeps_its_transparency_in_place(tmp_path: Path, task: str) -> None:
    array = np.full((24, 24, 4), 40, np.uint8)
    array[:, 6:] = 200  # colours and opacity change in the same column
    Image.fromarray(array).save(tmp_path / "a.png")
    options = {"deblur": ["--gaussian", 1.0], "inpaint": ["--mask", "box=4x4"],
               "superres": ["--factor", 2, "--filter", "box"]}[task]
    succeed("degrade", task, tmp_path / "a.png", *options, "-o", tmp_path / "y.png",
            "--noise", 0)
    y = levels(tmp_path / "y.png").astype(int)
    edge = {"deblur": 2, "inpaint": 6, "superres": 3}[task]
    for channel in (0, 3):
        assert abs(np.diff(y[1, :, channel])).argmax() == edge - 1
    if task == "inpaint":
        assert (y[10:14, 10:14, 3] == 0).all() and (y[:, :6, 3] == 40).all()


def test_results_and_hidden_folders_are_no_images(photos: Path, tmp_path: Path) -> None:
    save_photo(photos / "a.genprior.std.png")
    (photos / ".thumbs").mkdir()
    save_photo(photos / ".thumbs" / "a.png")
    assert image_files(photos, recursive=True) == [photos / "a.png"]
    succeed("evaluate", photos, "-o", tmp_path / "out", *TASK, "-q")
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1


def test_twelve_bits_are_not_sixteen(tmp_path: Path) -> None:
    white = np.full((4, 6), 4095, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", white, photometric="minisblack")
    data = (tmp_path / "a.tif").read_bytes()
    tag = struct.pack("<HHI", 258, 3, 1)
    assert data.count(tag + b"\x10") == 1
    (tmp_path / "a.tif").write_bytes(data.replace(tag + b"\x10", tag + b"\x0c"))
    _, message = refused("degrade", "denoise", tmp_path / "a.tif", "-o", tmp_path / "b.png")
    assert "a.tif: holds 12-bit" in message and "save it with 8 or 16 bits" in message


def test_names_may_be_any_bytes_and_too_long(tmp_path: Path, quick: list) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save_photo(folder / "z.png")
    os.rename(folder / "z.png", os.fsencode(folder) + b"/caf\xe9.png")
    save_photo(folder / ("é" * 121 + ".png"))
    save_photo(folder / "z.png")
    result = genprior("denoise", folder, "--noise", 0.1, *quick)
    assert result.exit_code == 6 and "1 of 3 files failed" in result.stderr
    made = sorted(os.listdir(os.fsencode(folder)))
    assert b"caf\xe9.genprior.png" in made and b"z.genprior.png" in made


def test_sweeping_removes_old_files_and_folders_and_meets_links_to_nothing(tmp_path: Path) -> None:
    (tmp_path / ".genprior-000000000000cace").mkdir()
    (tmp_path / ".genprior-00000000000000ed").write_text("")
    old = time.time() - 7200
    for name in (".genprior-000000000000cace", ".genprior-00000000000000ed"):
        os.utime(tmp_path / name, (old, old))
    (tmp_path / ".genprior-0000000000009073").symlink_to(tmp_path / "nothing")
    sweep(tmp_path)
    assert os.listdir(tmp_path) == [".genprior-0000000000009073"]


def test_the_record_of_one_failed_file_is_printed(tmp_path: Path, quick: list) -> None:
    (tmp_path / "a.png").write_text("no picture")
    result = genprior("denoise", tmp_path / "a.png", "--noise", 0.1, *quick, "--json")
    (record,) = json.loads(result.stdout)
    assert result.exit_code == record["exit_code"] == 3 and "not an image" in record["error"]


def test_formats(tmp_path: Path, quick: list) -> None:
    opaque = np.dstack([photo(), np.full(SIZE, 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "a.png")
    words = ["denoise", tmp_path / "a.png", "--noise", 0.1, *quick]
    succeed(*words, "--ext", "jpg", "-q")
    assert levels(tmp_path / "a.genprior.jpg").shape == (*SIZE, 3)
    code, message = refused(*words, "--ext", "jpg", "-o", tmp_path / "b.png")
    assert code == 2 and "--ext jpg does not match -o" in message
    succeed(*words, "--ext", "jpg", "-o", tmp_path / "c.JPEG", "-q")
    Image.fromarray(np.zeros((1, 16384, 3), np.uint8)).save(tmp_path / "wide.png")
    wide = ["denoise", tmp_path / "wide.png", "--noise", 0.1, *quick, "-o", tmp_path / "b.webp"]
    assert "WEBP has at most 16383 pixels per side, got 16384: write PNG" in refused(*wide)[1]


def test_streams(photos: Path, tmp_path: Path, quick: list) -> None:
    (photos / "deep").mkdir()
    (photos / "a.png").rename(photos / "deep" / "a.png")
    data = (photos / "deep" / "a.png").read_bytes()
    words = list(map(str, ["denoise", photos, "--recursive", "--noise", 0.1, *quick, "-o", "-"]))
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    with Image.open(io.BytesIO(result.stdout_bytes)) as image:
        assert image.size == SIZE[::-1]
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    succeed("denoise", pipe, "--noise", 0.1, *quick, "-o", tmp_path / "out.png", "-q")
    writer.join()
    digest = hashlib.sha256(data).hexdigest()
    assert sidecar(tmp_path / "out.png")["input_sha256"] == digest


def test_a_config_holds_any_name(photos: Path, tmp_path: Path, quick: list) -> None:
    mask = tmp_path / "😀.png"
    Image.fromarray(np.eye(*SIZE, dtype=np.uint8) * 255).save(mask)
    words = ["inpaint", photos / "a.png", *quick, "-q"]
    dumped = succeed(*words, "--mask", mask, "--dump-config").stdout
    (tmp_path / "run.toml").write_text(dumped, encoding="utf-8")
    succeed(*words, "--config", tmp_path / "run.toml", "-o", tmp_path / "out.png")
    assert sidecar(tmp_path / "out.png")["operator"]["mask"] == str(mask)


def test_a_texture_is_not_trained_into_a_used_folder(photos: Path, tmp_path: Path) -> None:
    words = ["train", "texture", photos / "a.png", "-o", tmp_path / "run"]
    succeed(*words)
    _, message = refused(*words)
    assert "holds a training run: choose another -o" in message


def test_a_blur_too_narrow_to_be_one(photos: Path, tmp_path: Path) -> None:
    words = ["degrade", "deblur", photos / "a.png", "--gaussian", 1e-200, "--noise", 0]
    succeed(*words, "-o", tmp_path / "y.png")
    assert np.array_equal(levels(tmp_path / "y.png"), photo()[1:-1, 1:-1])
