"""Killed processes: no half files, and every command can be resumed or started again."""

import itertools
import json
import os
import random
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import genprior, photo, save_photo, snapshot, succeed

from genprior.api.factory import load_checkpoint
from genprior.core.atomic_files import sweep
from genprior.core.errors import CheckpointError
from genprior.io.images import read_image, write_image
from genprior.priors import checkpoint
from genprior.priors.checkpoint import newest, save_checkpoint
from genprior.priors.ddpm import DDPM

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")


TIMES = [4, pytest.param(60, marks=pytest.mark.slow)]
# For a GPU, autograd starts threads, which a forked child does not have.
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="trains in a forked process")


def start(work: Callable[[], object]) -> int:
    """Starts a child process that does the work, and returns its number."""
    with warnings.catch_warnings(action="ignore"):  # of Python 3.12, about threads
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return child


def code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_midway(work: Callable[[], object], seconds: float) -> bool:
    """Kills a child process that does the work; returns whether it was still running."""
    child = start(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    code = code_of(child)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def kill_and_finish(
    work: Callable[[], object], finish: Callable[[], object], times: int
) -> None:
    """Kills a command at random moments, up to three times in a row; then it must finish.

    Arguments:
        work: Starts the command, or goes on with it.
        finish: Goes on with it to the end, checks its results, and deletes them.
        times: Number of kills.
    """
    began = time.monotonic()
    assert code_of(start(work)) == 0
    whole = time.monotonic() - began
    finish()
    rng, kills = random.Random(0), 0
    while kills < times:
        for _ in range(rng.randint(1, 3)):
            kills += kill_midway(work, rng.uniform(0, whole))
        finish()


def restore_all(folder: Path, weights: Path) -> None:
    options = ["--noise", 0.1, "--prior", weights, "--steps", 1, "--solver", "hqs"]
    options += ["--save", "panel", "--overwrite", "-q", "--device", "cpu"]
    succeed("denoise", folder / "in", "-o", folder / "out", *options)


def forever(work: Callable[[], object]) -> None:
    while True:
        work()


def kill_restorations(folder: Path, weights: Path, times: int) -> None:
    (folder / "in").mkdir()
    for number, suffix in enumerate((".png", ".jpg", ".tif", ".webp", ".npy")):
        photo = read_image(save_photo(folder / "photo.png", size=(30, 40), start=number))
        write_image(folder / "in" / f"{number}{suffix}", photo)
    restore_all(folder, weights)  # also imports the modules that the children need
    rng = random.Random(0)
    for _ in range(times):
        assert kill_midway(
            lambda: forever(lambda: restore_all(folder, weights)), rng.uniform(0.05, 0.6)
        )
        for path in (folder / "out").glob("[!.]*"):
            if path.suffix == ".json":
                record = json.loads(path.read_text())
                assert {path.with_name(name).exists() for name in record["files"]} == {True}
            else:
                assert read_image(path).pixels.shape[-1] >= 40


@pytest.mark.parametrize("times", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_restorations_leave_whole_files(
    tmp_path: Path, weights: Path, times: int
) -> None:
    kill_restorations(tmp_path, weights, times)


def save_again_and_again(folder: Path) -> None:
    prior = DDPM(widths=(16, 32), blocks=(1, 1))
    done = len(list(folder.glob("step-*")))
    for step in range(done, 10**6):
        weights, state = prior.state_dict(), {"step": torch.tensor(step)}
        save_checkpoint(folder / f"step-{step:08d}", "ddpm", prior.config, weights, state)


def kill_saves(folder: Path, times: int) -> None:
    rng = random.Random(0)
    for number in range(times):
        assert kill_midway(lambda: save_again_and_again(folder), rng.uniform(0.05, 0.2))
        try:
            load_checkpoint(newest(folder))
        except CheckpointError:
            assert number == 0 and not list(folder.glob("*/manifest.json"))


@pytest.mark.parametrize("times", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_saves_leave_a_whole_checkpoint(tmp_path: Path, times: int) -> None:
    kill_saves(tmp_path, times)


def train(folder: Path, out: Path, resume: bool) -> None:
    """Trains by the command with or without --resume; by the other if its message says so."""
    words = ["train", "ddpm", folder / "photos.npy", "-o", out, "--steps", 3, "--batch", 2,
             "--crop", 8, "--set", "widths=[4,8]", "--set", "blocks=[1,1]", "--no-preview", "-q",
             "--save-minutes", 0, "--dtype", "float32", "--device", "cpu",
             "--validate", folder / "held-out.npy"]
    result = genprior(*words, *["--resume"] * resume)
    if result.exit_code:
        expected = "without resume" if resume else "add --resume"
        assert expected in result.stderr, result.output
        succeed(*words, *["--resume"] * (not resume))


def trained(out: Path) -> dict[str, bytes]:
    """Returns the files of weights and the log of a training, which is complete."""
    for folder in (out, out / "best"):
        load_checkpoint(newest(folder))
    files = snapshot(out)
    assert ".genprior-" not in str(list(files))
    return {str(Path(name).relative_to(out)): data for name, data in files.items()
            if not name.endswith("manifest.json")}


@without_gpu
@pytest.mark.parametrize("times", TIMES)
def test_killed_trainings_are_finished(tmp_path: Path, times: int) -> None:
    for name, first in (("photos", 100), ("held-out", 200)):
        pixels = [photo(1, (8, 8), first + 8 * k) for k in range(4)]
        np.save(tmp_path / f"{name}.npy", np.stack(pixels))
    train(tmp_path, tmp_path / "whole", False)
    whole, out = trained(tmp_path / "whole"), tmp_path / "run"
    resume = itertools.cycle([False, True])

    def finish() -> None:
        train(tmp_path, out, next(resume))
        assert trained(out) == whole
        shutil.rmtree(out)

    kill_and_finish(lambda: train(tmp_path, out, len(list(out.glob("*"))) % 2 == 1), finish, times)


def evaluate(folder: Path, out: Path, *more: object) -> None:
    succeed("evaluate", folder / "photos", "-o", out, "--task", "denoise:noise=0.1", "--task",
            "superres:factor=2", "--prior", "none", "--baseline", "measurement,bicubic,wiener",
            "--tune", folder / "tune", "--show", 1, "-q", "--device", "cpu", *more)


def evaluated(out: Path) -> tuple[list[dict], list[dict], dict[str, bytes]]:
    """Returns the results and the rows of the report, without times, and the other files."""
    names = ("results.jsonl", "report.json", "report.md", "report.csv")
    lines = [json.loads(line) for line in (out / names[0]).read_text().splitlines()]
    rows = json.loads((out / names[1]).read_text())["rows"]
    for record in (*lines, *(row["scores"] for row in rows)):
        assert record.pop("seconds") is not None
        record.pop("memory", None)
    files = {str(Path(name).relative_to(out)): data for name, data in snapshot(out).items()}
    assert files.keys() >= {*names, "contact.png"}
    return lines, rows, {name: data for name, data in files.items()
                         if name not in names and ".genprior-" not in name}


@pytest.mark.parametrize("times", TIMES)
def test_killed_evaluations_are_finished(tmp_path: Path, times: int) -> None:
    for name, count in (("photos", 2), ("tune", 1)):
        (tmp_path / name).mkdir()
        for k in range(count):
            path = tmp_path / name / f"{k}.png"
            save_photo(path, size=(8, 8), start=100 + 8 * k + (name == "tune"))
    evaluate(tmp_path, tmp_path / "whole")
    whole, out = evaluated(tmp_path / "whole"), tmp_path / "run"
    overwrite = itertools.cycle([False, True])

    def finish() -> None:
        evaluate(tmp_path, out, *["--overwrite"] * next(overwrite))
        assert evaluated(out) == whole
        shutil.rmtree(out)

    def work() -> None:
        evaluate(tmp_path, out)
        evaluate(tmp_path, out, "--overwrite")

    kill_and_finish(work, finish, times)


def test_an_evaluation_that_is_killed_while_it_deletes_older_results_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(tmp_path / "a.png", size=(8, 8))
    words = ["evaluate", tmp_path / "a.png", "-o", tmp_path / "out", "--task",
             "superres:factor=2", "--prior", "none", "--baseline", "bicubic", "-q"]
    succeed(*words)
    whole = evaluated(tmp_path / "out")
    remove, left = Path.unlink, 0

    def killed(path: Path, missing_ok: bool = False) -> None:
        nonlocal left
        if path.is_relative_to(tmp_path) and ".genprior-" not in path.name:
            left -= 1
            if left < 0:
                os._exit(9)
        remove(path, missing_ok)

    def work() -> None:
        monkeypatch.setattr(Path, "unlink", killed)
        succeed(*words, "--overwrite")

    for number in range(8):
        left = number
        assert code_of(start(work)) == 9
        succeed(*words)
        assert evaluated(tmp_path / "out") == whole


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("command", ["pack", "import"])
def test_killed_copies_of_a_prior_are_made_again(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, command: str, times: int
) -> None:
    monkeypatch.setattr(checkpoint, "LARGEST", 10_000)  # several files
    prior, manifest = load_checkpoint(weights)
    torch.save(prior.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "copies").mkdir()
    out = tmp_path / "copies" / "copy"
    words: dict[str, list[object]] = {
        "pack": ["priors", "pack", weights, "-o", out],
        "import": ["import", tmp_path / "weights.pt", "--prior", "ddpm", "-o", out,
                   "--set", "widths=[8,16]", "--set", "blocks=[1,1]"],
    }

    def copy() -> None:
        result = genprior(*words[command])
        assert result.exit_code == 0 or f"{out} exists" in result.stderr, result.output

    def finish() -> None:
        copy()
        succeed("priors", "verify", out)
        shutil.rmtree(out)
        for left in (tmp_path / "copies").iterdir():
            os.utime(left, (0, 0))

    kill_and_finish(copy, finish, times)
    copy()
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["copy"]


def test_temporary_files_of_a_killed_run_are_removed_later(tmp_path: Path) -> None:
    half = [f".genprior-{digits}" for digits in ("0123456789abcdef", "fedcba9876543210")]
    mine = ["mine", ".genprior-", ".genprior-notes", ".genprior-0123456789abcdef.txt"]
    old, new = (tmp_path / name for name in half)
    for path in (old, new, *(tmp_path / name for name in mine)):
        path.write_bytes(b"half")
        if path != new:
            os.utime(path, (0, 0))
    sweep(tmp_path)
    sweep(tmp_path / "none")
    assert sorted(os.listdir(tmp_path)) == sorted([new.name, *mine])
