"""Killed processes leave complete files: restorations and trainings stopped at random times."""

import json
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from shell import save_photo, succeed

from genprior.api.factory import load_checkpoint
from genprior.core.atomic_files import sweep
from genprior.core.errors import CheckpointError
from genprior.io.images import read_image, write_image
from genprior.priors.checkpoint import newest, save_checkpoint
from genprior.priors.ddpm import DDPM

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")


def kill_midway(work: Callable[[], object], seconds: float) -> bool:
    """Kills a child process that does the work; returns whether it was still running."""
    with warnings.catch_warnings(action="ignore"):  # of Python 3.12, about threads
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def restore_all(folder: Path, weights: Path) -> None:
    options = ["--noise", 0.1, "--prior", weights, "--steps", 1, "--solver", "hqs"]
    options += ["--save", "panel", "--overwrite", "-q"]
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


def test_killed_restorations_leave_whole_files(tmp_path: Path, weights: Path) -> None:
    kill_restorations(tmp_path, weights, 8)


@pytest.mark.slow
def test_50_killed_restorations_leave_whole_files(tmp_path: Path, weights: Path) -> None:
    kill_restorations(tmp_path, weights, 50)


def train_again_and_again(folder: Path) -> None:
    prior = DDPM(widths=(16, 32), blocks=(1, 1))
    done = len(list(folder.glob("step-*")))
    for step in range(done, 10**6):
        weights, state = prior.state_dict(), {"step": torch.tensor(step)}
        save_checkpoint(folder / f"step-{step:08d}", "ddpm", prior.config, weights, state)


def kill_trainings(folder: Path, times: int) -> None:
    rng = random.Random(0)
    for number in range(times):
        assert kill_midway(lambda: train_again_and_again(folder), rng.uniform(0.05, 0.2))
        try:
            load_checkpoint(newest(folder))
        except CheckpointError:
            assert number == 0 and not list(folder.glob("*/manifest.json"))


def test_killed_trainings_leave_a_whole_checkpoint(tmp_path: Path) -> None:
    kill_trainings(tmp_path, 8)


@pytest.mark.slow
def test_50_killed_trainings_leave_a_whole_checkpoint(tmp_path: Path) -> None:
    kill_trainings(tmp_path, 50)


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
