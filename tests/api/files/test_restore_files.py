"""Batches of files, and the paths of their results."""

import os
from pathlib import Path

import pytest
from shell import save_photo

from genprior.api.files import paths, restore_files
from genprior.api.files.job import Job
from genprior.api.files.paths import InputFile, OutputPaths, check_free, list_files, plan
from genprior.api.files.restore_files import run
from genprior.api.tasks import denoising
from genprior.core.errors import ImageError


def test_images_of_one_size_are_restored_together(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heights = (9, 9, 9, 8, 9)
    files = [save_photo(tmp_path / f"{k}.png", size=(h, 8)) for k, h in enumerate(heights)]
    sizes, restore = [], restore_files.restore
    monkeypatch.setattr(
        restore_files, "restore", lambda y, *a, **k: sizes.append(len(y)) or restore(y, *a, **k)
    )
    monkeypatch.setattr(restore_files, "BATCH", 2)
    job = Job("denoise", denoising(), {}, 0.1, prior=str(weights))
    records = list(run(job, plan(files, tmp_path / "out")))
    assert sizes == [2, 1, 1, 1]
    assert [record["input"] for record in records] == list(map(str, files))
    monkeypatch.setattr(restore_files, "BATCH_PIXELS", 71)  # less than one image
    sizes.clear()
    list(run(job, plan(files[:2], tmp_path / "small")))
    assert sizes == [1, 1]


def test_the_prior_is_loaded_once(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, load = [], restore_files.load_checkpoint
    monkeypatch.setattr(restore_files, "load_checkpoint", lambda f: loads.append(f) or load(f))
    files = [save_photo(tmp_path / f"{k}.png", size=(8, 8 + k)) for k in range(3)]
    list(run(Job("denoise", denoising(), {}, 0.1, prior=str(weights)), plan(files)))
    assert loads == [weights]


def test_names_of_results(tmp_path: Path) -> None:
    file = tmp_path / "a.b.jpg"
    (place,) = plan([file], save=("std", "samples"), samples=2)
    names = ["a.b.genprior.jpg", "a.b.genprior.std.png"]
    names += [f"a.b.genprior.sample-0{k}.png" for k in (0, 1)] + ["a.b.genprior.json"]
    assert place.written == [tmp_path / name for name in names]
    (place,) = plan([file], tmp_path / "out")
    assert place.output == tmp_path / "out" / "a.b.genprior.jpg"
    (place,) = plan([file], tmp_path / "x.tiff")
    assert place == OutputPaths(file, tmp_path / "x.tiff")
    folder = tmp_path / "v1.2"
    folder.mkdir()
    assert plan([file], folder)[0].output == folder / "a.b.genprior.jpg"


def test_files_come_from_folders_without_the_results_of_other_runs(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    names = ["b.png", "a.JPG", "a.genprior.png", "a.genprior.std.png", ".hidden.png", "x.txt"]
    for name in (*names, "deep/er/c.png", "deep/er/c.genprior.png"):
        (tmp_path / name).write_bytes(b"")
    made, deep = (
        tmp_path / "a.genprior.png",
        InputFile(tmp_path / "deep/er/c.png", Path("deep/er")),
    )
    flat = [InputFile(tmp_path / "a.JPG"), InputFile(tmp_path / "b.png")]
    assert list_files([tmp_path]) == flat
    assert list_files([tmp_path], recursive=True) == [*flat, deep]
    assert list_files([made, tmp_path / "b.png"]) == [InputFile(made), flat[1]]
    assert list_files([tmp_path / "*.*"]) == [*flat, InputFile(tmp_path / "x.txt")]
    assert list_files([tmp_path / "**/c*"]) == [InputFile(deep.file)]
    with pytest.raises(ImageError, match="no such file or folder"):
        list_files([tmp_path / "*.gif"])


@pytest.mark.parametrize("names", [("a.png", "A.png"), ("\u00e9.png", "e\u0301.png")])
@pytest.mark.parametrize("folders", [("x", "x"), ("x/b", "x/B")])
def test_outputs_that_differ_in_case_or_unicode_form_only_are_refused(
    tmp_path: Path, names: tuple[str, str], folders: tuple
) -> None:
    files = [InputFile(tmp_path / folder / name, Path(folder))
             for folder, name in zip(folders, names, strict=True)]
    message = r"would both be written to .* \(names that differ in case or Unicode form only count"
    with pytest.raises(ImageError, match=message):
        plan(files, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [("a.png", "b.png"), ("e.png", "\u00e9.png")])
def test_outputs_of_different_names_are_accepted(tmp_path: Path, names: tuple[str, str]) -> None:
    outputs = [target.output for target in plan([tmp_path / name for name in names])]
    assert outputs == [tmp_path / name.replace(".png", ".genprior.png") for name in names]


def test_folders_are_kept_in_outputs_and_formats_can_be_changed(tmp_path: Path) -> None:
    files = [InputFile(Path("in/a/x.png"), Path("a")), InputFile(Path("in/b/x.jpg"), Path("b"))]
    first, second = plan(files, tmp_path)
    assert first.output == tmp_path / "a" / "x.genprior.png"
    assert second.output == tmp_path / "b" / "x.genprior.jpg"
    assert plan(files, tmp_path, suffix=".tif")[1].output == tmp_path / "b" / "x.genprior.tif"
    with pytest.raises(ImageError, match="would both be written to"):
        plan([Path("in/a/x.png"), Path("in/b/x.png")], tmp_path)


def test_a_file_without_suffix_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot write .genprior: give -o a file that ends"):
        plan([tmp_path / "photo"])
    with pytest.raises(ImageError, match="cannot write files without suffix"):
        check_free([tmp_path / "photo"], overwrite=True)


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match="a.png exists"):
        check_free([tmp_path / "a.png"], overwrite=True)


def test_a_folder_that_cannot_be_written_is_found_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths.os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(ImageError, match="is not a writable folder: choose another -o"):
        plan([tmp_path / "a.png"], tmp_path / "new" / "out")
