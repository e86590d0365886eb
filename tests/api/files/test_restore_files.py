"""Batches of files, and the paths of their results."""

import io
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from shell import save_photo

from genprior.api.files import paths, restore_files
from genprior.api.files.job import Job
from genprior.api.files.paths import (
    InputFile,
    OutputPaths,
    check_free,
    list_files,
    plan,
    read_stream,
)
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
    monkeypatch.setattr(restore_files, "CPU_BATCH", 2)
    job = Job("denoise", denoising(), {}, 0.1, prior=str(weights))
    records = list(run(job, plan(files, tmp_path / "out")))
    assert sizes == [2, 1, 1, 1]
    assert [record["input"] for record in records] == list(map(str, files))
    monkeypatch.setattr(restore_files, "BATCH_PIXELS", 71)  # less than one image
    sizes.clear()
    list(run(job, plan(files[:2], tmp_path / "small")))
    assert sizes == [1, 1]


def test_on_a_cpu_results_appear_file_by_file(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save_photo(tmp_path / f"{k}.png", size=(8, 8), start=k) for k in range(3)]
    targets = plan(files, tmp_path / "out")
    calls, restore = [], restore_files.restore

    def interrupted(y, *given, **options):
        calls.append(len(y))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return restore(y, *given, **options)

    monkeypatch.setattr(restore_files, "restore", interrupted)
    records = run(Job("denoise", denoising(), {}, 0.1, prior=str(weights), device="cpu"), targets)
    for number in range(2):
        next(records)
        assert [t.output.exists() for t in targets] == [k <= number for k in range(3)]
    with pytest.raises(KeyboardInterrupt):
        next(records)
    assert calls == [1, 1, 1] and [t.sidecar.exists() for t in targets] == [True, True, False]


def test_on_a_gpu_images_of_one_size_are_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save_photo(tmp_path / f"{k}.png", size=(8, 8)) for k in range(20)]
    job = Job("denoise", denoising(), {}, 0.1, device="cuda")
    sizes = []
    monkeypatch.setattr(restore_files, "pick_device", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(restore_files, "_prior_of_all", lambda *_: "prior")
    monkeypatch.setattr(
        restore_files, "_restored", lambda job, batch, *_: sizes.append(len(batch.targets)) or ()
    )
    assert list(run(job, plan(files))) == [] and sizes == [16, 4]


def test_the_next_file_is_read_while_one_is_restored(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save_photo(tmp_path / f"{k}.png", size=(8, 8), start=k) for k in range(3)]
    were_read, restore, read = [], restore_files.restore, OutputPaths.read
    second_read = threading.Event()

    def reading(target: OutputPaths, *limit: int):
        were_read.append(target.source.name)
        if len(were_read) == 2:
            second_read.set()
        return read(target, *limit)

    def restoring(*given, **options):
        assert second_read.wait(60), "the next file is not read meanwhile"
        return restore(*given, **options)

    monkeypatch.setattr(OutputPaths, "read", reading)
    monkeypatch.setattr(restore_files, "restore", restoring)
    job = Job("denoise", denoising(), {}, 0.1, prior=str(weights), device="cpu")
    assert len(list(run(job, plan(files)))) == 3
    assert were_read == ["0.png", "1.png", "2.png"]


def test_on_a_gpu_results_are_written_while_the_next_ones_are_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save_photo(tmp_path / f"{k}.png", size=(8, 8)) for k in range(3)]
    begun = [threading.Event() for _ in files]

    class Result:
        def __init__(self, number: int, target: OutputPaths) -> None:
            self.number, self.target = number, target

        def write_all(self, job: Job) -> list:
            last = self.number == len(files) - 1
            assert last or begun[self.number + 1].wait(60), "the next file waits for the writing"
            return [(self.target, {"number": self.number})]

    def restoring(job, batch, *_):
        number = int(batch.targets[0].source.stem)
        begun[number].set()
        return Result(number, batch.targets[0])

    monkeypatch.setattr(restore_files, "pick_device", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(restore_files, "_prior_of_all", lambda *_: "prior")
    monkeypatch.setattr(restore_files, "GPU_BATCH", 1)
    monkeypatch.setattr(restore_files, "_restore_batch", restoring)
    records = list(run(Job("denoise", denoising(), {}, 0.1, device="cuda"), plan(files)))
    assert [record["number"] for record in records] == [0, 1, 2]


def test_progress_counts_the_evaluations_of_all_files(tmp_path: Path, weights: Path) -> None:
    files = [save_photo(tmp_path / f"{k}.png", size=(8, 8), start=k) for k in range(3)]
    (tmp_path / "1.png").write_bytes(b"")
    seen, failed = [], []
    job = Job("denoise", denoising(), {}, 0.1, prior=str(weights), solver="hqs", steps=2,
              device="cpu")
    list(run(job, plan(files), lambda *count: seen.append(count), lambda *f: failed.append(f)))
    assert len(failed) == 1
    assert [done for done, _ in seen] == [1, 2, 3, 4] and seen[-1] == (4, 4)


def test_the_prior_is_loaded_once(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, load = [], restore_files.load_described
    monkeypatch.setattr(restore_files, "load_described", lambda f: loads.append(f) or load(f))
    files = [save_photo(tmp_path / f"{k}.png", size=(8, 8 + k)) for k in range(3)]
    list(run(Job("denoise", denoising(), {}, 0.1, prior=str(weights)), plan(files)))
    assert loads == [str(weights)]


def test_names_of_results(tmp_path: Path) -> None:
    file = tmp_path / "a.b.jpg"
    (target,) = plan([file], save=("std", "samples"), samples=2)
    names = ["a.b.genprior.jpg", "a.b.genprior.std.png"]
    names += [f"a.b.genprior.sample-0{k}.png" for k in (0, 1)] + ["a.b.genprior.json"]
    assert target.written == [tmp_path / name for name in names]
    (target,) = plan([file], tmp_path / "out")
    assert target.output == tmp_path / "out" / "a.b.genprior.jpg"
    (target,) = plan([file], tmp_path / "x.tiff")
    assert target == OutputPaths(file, tmp_path / "x.tiff")
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
    several = [tmp_path / "b.png", tmp_path / "none.png"]  # of several it is the error of one
    assert list_files(several) == list(map(InputFile, several))


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


def test_files_of_one_stem_have_results_and_sidecars_of_their_own(tmp_path: Path) -> None:
    names = ["a.png", "a.jpg", "A.tif", "b.jpg"]
    for suffix, endings in ((None, ["png", "jpg", "tif", "jpg"]), (".png", ["png"] * 4)):
        targets = plan([tmp_path / name for name in names], suffix=suffix)
        made = [f"{name}.genprior.{end}" for name, end in zip(names[:3], endings, strict=False)]
        assert [t.output.name for t in targets] == [*made, f"b.genprior.{endings[3]}"]
        assert len({t.sidecar for t in targets}) == 4


def test_the_sidecar_of_another_result_is_kept(tmp_path: Path) -> None:
    record = {"task": "denoise", "files": {"a.genprior.png": "0"}, "input_sha256": "0"}
    (tmp_path / "a.genprior.json").write_text(json.dumps(record))
    for settings in ({}, {"redo": "denoise"}):
        with pytest.raises(ImageError, match="json describes a.genprior.png: choose another -o"):
            plan([tmp_path / "a.jpg"], **settings)
    for name in ("a.jpg", "a.png"):
        assert plan([tmp_path / name], overwrite=True)[0].output.stem == "a.genprior"


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


LONG = "a" * 242  # and .genprior.png has 255 letters, the longest name of most file systems


@pytest.mark.skipif(os.name != "posix", reason="other limits, and links need rights")
def test_names_that_cannot_be_written_are_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "folder").symlink_to(tmp_path / "no-folder")
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in {
        f"{LONG}{'a' * 10}.png": "file name too long",  # the sidecar is longer than the image
        f"new/{'a' * 300}/a.png": "file name too long",
        "b/" * 2100 + "c.png": "file name too long",
        "link.png": "link.png is a link to .*nothing.png, which does not exist: remove the link",
        "folder/a.png": "folder is a link to .*no-folder, which does not exist",
        "round.png": "round.png is a link to .*round.png, which does not exist",
        "pipe.png": "pipe.png is not a regular file",
        "a.png/b.png": "a.png is not a writable folder",
    }.items():
        with pytest.raises(ImageError, match=message):
            plan([Path("input.png")], tmp_path / name, overwrite=True)
    assert plan([Path("in.png")], tmp_path / "new" / f"{LONG}.png", save=["panel"])
    with pytest.raises(ImageError, match="too long"):
        plan([Path("in.png")], tmp_path / "new" / f"{LONG}aaaaaa.png", save=["panel"])


@pytest.mark.skipif(os.name != "posix", reason="other limits")
def test_a_name_that_is_too_long_is_the_error_of_one_file(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save_photo(tmp_path / f"{name}.png", size=(8, 8)) for name in ("b", f"{LONG}c", "z")]
    failures = []
    targets = plan(files)
    job = Job("denoise", denoising(), {}, 0.1, prior=str(weights))
    records = run(job, targets, failed=lambda target, error: failures.append(str(error)))
    assert next(records)["input"] == str(files[0])
    assert len(failures) == 1 and "too long): choose another -o" in failures[0]
    assert len(list(records)) == 1
    left = {p.name for p in tmp_path.iterdir()} - {p.name for p in files}
    assert left == {f"{name}.genprior.{kind}" for name in "bz" for kind in ("png", "json")}


def test_a_result_of_another_process_is_kept(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save_photo(tmp_path / f"{k}.png", size=(8, 8), start=k) for k in range(3)]
    targets = plan(files, tmp_path / "out")
    failures, restore = [], restore_files.restore

    def slow(*given, **options):  # the other process is faster
        for target in targets[:2]:
            target.output.parent.mkdir(exist_ok=True)
            target.sidecar.write_text("theirs")
        return restore(*given, **options)

    monkeypatch.setattr(restore_files, "restore", slow)
    job = Job("denoise", denoising(), {}, 0.1, prior=str(weights))
    made = list(run(job, targets, failed=lambda target, error: failures.append(str(error))))
    assert [record["input"] for record in made] == [str(files[2])]
    late, early = failures
    assert late == (f"{targets[0].sidecar} has been created by another process meanwhile and is "
                    f"kept: add --overwrite, or choose another -o")
    assert early == f"{targets[1].sidecar} exists: add --overwrite, or choose another -o"
    kept = {p.name for p in (tmp_path / "out").iterdir()}
    assert kept == {"0.genprior.json", "1.genprior.json", "2.genprior.json", "2.genprior.png"}
    assert targets[0].sidecar.read_text() == "theirs"


@pytest.mark.parametrize("text", ["[" * 9999, "[]", '{"task": 3}', '{"task": "denoise"}',
                                  '{"task": "denoise", "files": [], "input_sha256": ""}'])
def test_a_damaged_sidecar_is_no_complete_result(tmp_path: Path, text: str) -> None:
    (target,) = plan([save_photo(tmp_path / "a.png")])
    for path in target.images:
        path.touch()
    target.sidecar.write_text(text)
    assert not target.is_made("denoise")
    assert plan([target.source], redo="denoise")[0].overwrite


@pytest.mark.skipif(os.name != "posix", reason="needs devices")
def test_files_that_never_end_are_not_read(tmp_path: Path) -> None:
    (target,) = plan([save_photo(tmp_path / "a.png")])
    target.sidecar.write_text(json.dumps({"task": "denoise", "files": {}, "input_sha256": ""}))
    target.output.symlink_to("/dev/zero")
    assert not target.is_made("denoise")
    target.sidecar.unlink()
    target.sidecar.symlink_to("/dev/zero")
    assert not target.is_made("denoise")
    (device,) = list_files([Path("/dev/zero")])
    with pytest.raises(ImageError, match="/dev/zero: is not a regular file"):
        OutputPaths(device.file, tmp_path / "b.png").read()


def test_a_stream_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MAX_STREAM_BYTES", 2**21)
    assert len(read_stream(io.BytesIO(bytes(2**21)), "-")) == 2**21
    with pytest.raises(ImageError, match="-: has more than 2097152 bytes: give a file"):
        read_stream(io.BytesIO(bytes(2**21 + 1)), "-")
