"""Several files: failures of single files, streams, and repeated runs."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from shell import SIZE, genprior, levels, photo, save_photo, sidecar, snapshot, succeed

from genprior.api.files import restore_files
from genprior.cli import main
from genprior.commands.console import Report
from genprior.core.errors import ImageError

MASK = ["--mask", "box=3x4"]


@pytest.fixture
def quick(weights: Path) -> list[object]:
    return ["--prior", weights, "--solver", "hqs", "--steps", 1]


def spoil(folder: Path) -> dict[str, str]:
    """Writes five files that cannot be restored, and returns a part of each error message."""
    good = save_photo(folder / "whole.png").read_bytes()
    (folder / "whole.png").unlink()
    (folder / "p03.png").write_bytes(good[:200])
    (folder / "p07.png").write_bytes(b"")
    (folder / "p11.jpg").write_bytes(good)
    (folder / "p20.png").write_text("not an image")
    save_photo(folder / "p29.png", size=(2, 2))
    return {"p03.png": "damaged or cut short", "p07.png": "the file is empty",
            "p11.jpg": "holds PNG, not JPEG", "p20.png": "not an image in PNG",
            "p29.png": "the box must be inside the image"}


def test_30_files_of_which_5_are_bad(tmp_path: Path, quick: list) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    bad = spoil(folder)
    for number in range(30):
        if not any(f"p{number:02d}" in name for name in bad):
            save_photo(folder / f"p{number:02d}.png", size=(9, 11 + number % 2), start=number)
    before = snapshot(folder)
    result = genprior("inpaint", folder, *MASK, *quick, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 6
    records = {Path(record["input"]).name: record for record in json.loads(result.stdout)}
    assert len(records) == 30
    for name, record in records.items():
        output = tmp_path / "out" / name.replace(".", ".genprior.")
        assert output.exists() == (name not in bad)
        assert output.with_suffix(".json").exists() == (name not in bad)
        if name in bad:
            assert record["exit_code"] == 3 and bad[name] in record["error"]
            assert f"error: {folder / name}: " in result.stderr
        else:
            assert record == sidecar(output)
    *lines, last = result.stderr.splitlines()
    assert len(lines) == 5 and last == "genprior: 5 of 30 files failed"
    assert len(os.listdir(tmp_path / "out")) == 50
    assert snapshot(folder) == before


def test_a_file_that_fails_in_a_batch_leaves_the_others(
    tmp_path: Path, quick: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save_photo(tmp_path / f"{n}.png", start=n) for n in range(3)]
    restore = restore_files.restore
    dark = photo(start=1)[0, 0, 0] / 255

    def failing_on_one(y, *given, **options):
        if (y[:, 0, 0, 0] == np.float32(dark)).any():
            raise MemoryError("no room for this one")
        return restore(y, *given, **options)

    monkeypatch.setattr(restore_files, "restore", failing_on_one)
    result = genprior("inpaint", *files, *MASK, *quick)
    assert result.exit_code == 6
    error, last = result.stderr.splitlines()
    assert error == f"error: {files[1]}: no room for this one"
    assert last == "genprior: 1 of 3 files failed"
    assert [(tmp_path / f"{n}.genprior.png").exists() for n in range(3)] == [True, False, True]


def test_files_of_other_kinds_do_not_stop_the_rest(tmp_path: Path, quick: list) -> None:
    good = [save_photo(tmp_path / f"{name}.png", start=n) for n, name in enumerate("abz")]
    (tmp_path / "c.png").symlink_to(tmp_path / "c.png")
    (tmp_path / "notes.txt").write_text("not an image")
    Image.fromarray(photo()).save(tmp_path / "d.gif")
    (tmp_path / "photo").write_bytes(good[0].read_bytes())
    (tmp_path / "folder.png").mkdir()
    save_photo(tmp_path / "folder.png" / "inner.png")
    bad = {"d.gif": "not an image in PNG", "notes.txt": "not an image in PNG",
           "photo": "a result cannot be written as a file without suffix: choose a format",
           "none.png": "cannot be read (no such file or directory): check the name",
           "c.png": "cannot be read (too many levels of symbolic links): check the name"}
    files = [good[0], *(tmp_path / name for name in bad), *good[1:], tmp_path / "folder.png"]
    words = ["inpaint", *files, *MASK, *quick, "-o", tmp_path / "out"]
    result = genprior(*words)
    *lines, last = result.stderr.splitlines()
    assert (result.exit_code, last) == (6, "genprior: 5 of 9 files failed")
    assert {name: any(f"{tmp_path / name}: " in line and text in line for line in lines)
            for name, text in bad.items()} == dict.fromkeys(bad, True)
    made = {p.name for p in (tmp_path / "out").glob("*.png")}
    assert made == {f"{name}.genprior.png" for name in ("a", "b", "z", "inner")}
    (tmp_path / "photo").rename(tmp_path / "photo.dat")
    succeed("inpaint", tmp_path / "photo.dat", tmp_path / "a.png", *MASK, *quick, "--ext", "tif")


@pytest.mark.skipif(os.name != "posix", reason="needs devices")
def test_a_device_does_not_stop_the_rest(tmp_path: Path, quick: list) -> None:
    result = genprior("inpaint", "/dev/zero", save_photo(tmp_path / "a.png"), *MASK, *quick,
                      "--ext", "png", "-o", tmp_path / "out")
    assert result.exit_code == 6 and "/dev/zero: is not a regular file: give" in result.stderr
    assert (tmp_path / "out" / "a.genprior.png").exists()


def test_of_two_restorations_into_one_folder_the_later_one_fails(
    tmp_path: Path, quick: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second restoration runs from start to end while the first one restores."""
    for n in range(3):
        save_photo(tmp_path / "in" / f"{n}.png" if n else _folder(tmp_path) / "0.png", start=n)
    words = ["inpaint", tmp_path / "in", *MASK, *quick, "-o", tmp_path / "out"]
    restore, other = restore_files.restore, []

    def second_first(*given, **options):
        if not other:
            other.append(None)
            other[0] = succeed(*words, "--seed", 1), snapshot(tmp_path / "out")
        return restore(*given, **options)

    monkeypatch.setattr(restore_files, "restore", second_first)
    result = genprior(*words)
    assert result.exit_code == 6 and snapshot(tmp_path / "out") == other[0][1]
    *lines, last = result.stderr.splitlines()
    assert last == "genprior: 3 of 3 files failed"
    assert "0.genprior.png has been created by another process meanwhile and is kept" in lines[0]
    assert all("exists: add --overwrite, or choose another -o" in line for line in lines[1:])
    other.clear()
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    result = genprior("inpaint", tmp_path / "in" / "0.png", *MASK, *quick, "-o", tmp_path / "out")
    assert result.exit_code == 3 and result.stderr.count("\n") == 1


def _folder(parent: Path) -> Path:
    (parent / "in").mkdir()
    return parent / "in"


@pytest.mark.parametrize("words", [
    ["degrade", "denoise", "@/a.png"], ["texture", "@/a.png"],
    ["sample", "--prior", "texture", "--exemplar", "@/a.png"],
])
def test_other_commands_replace_nothing_either(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from genprior.api.files import outputs

    save_photo(tmp_path / "a.png")
    write = outputs.write_image

    def late(path: Path, *given: object, **options: object) -> None:
        path.write_text("theirs")
        write(path, *given, **options)

    words = [*(word.replace("@", str(tmp_path)) for word in words), "-o", tmp_path / "b.png"]
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_image", late)
        result = genprior(*words)
    assert result.exit_code == 3 and "b.png has been created by another process" in result.stderr
    assert (tmp_path / "b.png").read_text() == "theirs" and len(os.listdir(tmp_path)) == 2
    (tmp_path / "b.png").unlink()
    (tmp_path / "b.png").symlink_to(tmp_path / "nothing.png")
    for more in ([], ["--overwrite"]):
        result = genprior(*words, *more)
        assert result.exit_code == 3 and "which does not exist: remove the link" in result.stderr


def test_an_error_in_the_command_stops_it(tmp_path: Path, quick: list) -> None:
    files = [save_photo(tmp_path / f"{n}.png", start=n) for n in range(2)]
    for options, code in (["--samples", 2], 2), (["--prior", tmp_path / "none"], 4):
        result = genprior("inpaint", *files, *MASK, *quick, *options)
        assert result.exit_code == code and result.stderr.count("\n") == 1


def test_a_result_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genprior.api.files import outputs

    file = save_photo(tmp_path / "a.png")
    write = outputs.write_image

    def full(path: Path, *given: object) -> None:
        if "std" not in path.name:
            raise ImageError(f"{path}: cannot be written (disk full)")
        write(path, *given)

    monkeypatch.setattr(outputs, "write_image", full)
    options = ["--prior", weights, "--samples", 2, "--steps", 1, "--save", "std"]
    result = genprior("inpaint", file, *MASK, *options)
    assert result.exit_code == 3 and "disk full" in result.stderr
    assert os.listdir(tmp_path) == ["a.png"]


def test_existing_results_are_left_out_if_whole(tmp_path: Path, quick: list) -> None:
    names = ("whole", "cut", "bare", "changed", "new")
    files = {name: save_photo(tmp_path / f"{name}.png", start=9 * k) for k, name in
             enumerate(names)}
    command = ["inpaint", tmp_path, *MASK, *quick]
    succeed(*command)
    outputs = {name: tmp_path / f"{name}.genprior.png" for name in names}
    first = snapshot(tmp_path)
    outputs["cut"].write_bytes(outputs["cut"].read_bytes()[:99])
    outputs["bare"].with_suffix(".json").unlink()
    save_photo(files["changed"], start=77)
    outputs["new"].unlink()
    assert genprior(*command).exit_code == 3  # without the option nothing is replaced
    result = succeed(*command, "--skip-existing", "--json")
    skipped = [record["input"] for record in json.loads(result.stdout) if "skipped" in record]
    assert skipped == [str(files["whole"])]
    for name in names:
        kept = outputs[name].read_bytes() == first[str(outputs[name])]
        assert kept == (name != "changed")
    result = succeed(*command, "--skip-existing")
    assert result.stdout.count("[exists]") == 5
    mine = tmp_path / "mine.png"
    mine.write_bytes(b"not made here")
    named = genprior("inpaint", files["new"], *MASK, *quick, "-o", mine, "--skip-existing")
    assert named.exit_code == 3 and "mine.png exists: add --overwrite" in named.stderr
    succeed("inpaint", files["new"], *MASK, *quick, "-o", mine, "--overwrite")
    again = succeed("inpaint", files["new"], *MASK, *quick, "-o", mine, "--skip-existing")
    assert again.stdout.count("[exists]") == 1
    other = genprior("denoise", files["new"], "--noise", 0.1, "-o", mine, "--skip-existing")
    assert other.exit_code == 3 and "mine.png exists: add --overwrite" in other.stderr


def test_a_folder_of_masks_and_folders_of_folders(tmp_path: Path, quick: list) -> None:
    holes = {"a/x": (2, 5), "b/x": (7, 9), "y": (11, 20)}
    for name, (row, column) in holes.items():
        for folder in ("in", "masks"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_photo(tmp_path / "in" / f"{name}.jpg")
        mask = np.zeros(SIZE, np.uint8)
        mask[row:row + 3, column:column + 4] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    options = ["--mask", tmp_path / "masks", *quick, "--recursive", "--ext", "png"]
    succeed("inpaint", tmp_path / "in", *options, "-o", tmp_path / "out")
    for name, (row, column) in holes.items():
        output = tmp_path / "out" / f"{name}.genprior.png"
        changed = (levels(output) != levels(tmp_path / "in" / f"{name}.jpg")).any(2)
        hole = np.zeros(SIZE, bool)
        hole[row:row + 3, column:column + 4] = True
        assert not changed[~hole].any() and changed[hole].mean() > 0.9
    save_photo(tmp_path / "masks" / "y.bmp")
    result = genprior("inpaint", tmp_path / "in" / "y.jpg", *options)
    assert result.exit_code == 3 and "there are 2 masks for this image" in result.stderr


def test_restoring_a_folder_into_itself_touches_no_original(tmp_path: Path, quick: list) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        save_photo(tmp_path / name)
    (tmp_path / "a.jpg").rename(tmp_path / "c.jpg")
    before = snapshot(tmp_path)
    for options in ([], ["--overwrite"], ["--skip-existing"]):
        succeed("inpaint", tmp_path, "-o", tmp_path, *MASK, *quick, *options)
        after = snapshot(tmp_path)
        assert {name: after[name] for name in before} == before and len(after) == 9
    result = genprior("inpaint", tmp_path / "a.png", "-o", tmp_path / "b.png", *MASK, *quick)
    assert result.exit_code == 3 and "b.png exists: add --overwrite" in result.stderr
    assert snapshot(tmp_path) == after


def stream(data: bytes, *arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), prog_name="genprior", input=data,
                              catch_exceptions=False)


def test_from_standard_input_to_standard_output(tmp_path: Path, quick: list) -> None:
    file = save_photo(tmp_path / "a.png")
    succeed("inpaint", file, *MASK, *quick)
    expected = (tmp_path / "a.genprior.png").read_bytes()
    before = snapshot(tmp_path)
    result = stream(file.read_bytes(), "inpaint", "-", *MASK, *quick)
    assert result.exit_code == 0 and result.stdout_bytes == expected
    assert result.stderr.startswith("- -> ")
    assert stream(b"", "inpaint", file, "-o", "-", *MASK, *quick).stdout_bytes == expected
    result = stream(file.read_bytes(), "inpaint", "-", *MASK, *quick, "--ext", "tif", "-q")
    with Image.open(io.BytesIO(result.stdout_bytes)) as image:
        assert image.format == "TIFF" and result.stderr == ""
        np.testing.assert_array_equal(np.asarray(image), levels(tmp_path / "a.genprior.png"))
    assert snapshot(tmp_path) == before
    stream(file.read_bytes(), "inpaint", "-", *MASK, *quick, "-o", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == expected
    assert sidecar(tmp_path / "b.png")["input"] == "-"
    for data, message in (b"", "the file is empty"), (b"text", "not an image in PNG"):
        result = stream(data, "inpaint", "-", *MASK, *quick)
        assert result.exit_code == 3 and result.stdout == ""
        assert result.stderr.startswith(f"genprior: -: {message}")


def test_interrupting_leaves_whole_files_only(
    tmp_path: Path, quick: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save_photo(tmp_path / f"{n}.png", size=(8, 8 + n)) for n in range(3)]

    def press_ctrl_c(report: Report, record: dict) -> None:
        if record["input"] == str(files[1]):
            raise KeyboardInterrupt

    monkeypatch.setattr(Report, "restored", press_ctrl_c)
    result = genprior("inpaint", *files, *MASK, *quick)
    assert (result.exit_code, result.stderr) == (130, "genprior: interrupted\n")
    made = sorted(p.name for p in tmp_path.glob("*.genprior.*"))
    assert made == [f"{n}.genprior.{kind}" for n in (0, 1) for kind in ("json", "png")]
    monkeypatch.undo()
    result = succeed("inpaint", *files, *MASK, *quick, "--skip-existing")
    assert result.stdout.count("[exists]") == 2 and result.stdout.count("[hqs") == 1
