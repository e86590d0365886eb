"""Checkpoints that a training resumes from: damaged, changed by hand, or killed at the first."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from repository import ROOT
from safetensors.torch import load_file
from shell import refused, succeed

from genprior.api.factory import load_checkpoint
from genprior.core.errors import CheckpointError, SettingError
from genprior.priors.checkpoint import read_manifest, save_checkpoint
from genprior.priors.ddpm import DDPM
from genprior.training.crops import Crops
from genprior.training.loop import Settings, fit

SMALL = {"widths": (16, 16), "blocks": (1, 1)}


@pytest.fixture
def crops(tmp_path: Path) -> Crops:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "0.png")
    return Crops([tmp_path / "photos"], 16)


def run(crops: Crops, out: Path, steps: int, resume: bool = False, **more: object) -> Path:
    torch.manual_seed(0)
    settings = Settings(steps=steps, batch=2, dtype="float32", **more)
    return fit("ddpm", DDPM(**SMALL), crops, out, settings, resume=resume)


def rewrite(folder: Path, state: dict, **changes: object) -> None:
    """Writes the state of a checkpoint again, with right checksums, and changes the manifest."""
    manifest, model = read_manifest(folder), load_file(folder / "model.safetensors")
    about = {k: v for k, v in manifest.items() if k not in ("schema", "prior", "config", "files")}
    save_checkpoint(folder, "ddpm", manifest["config"], model, state, {**about, **changes})


def first(state: dict, ending: str) -> str:
    return next(key for key in sorted(state) if key.endswith(ending))


ENTRY = {"adamw": "exp_avg", "muon": "momentum_buffer", "rmsprop": "square_avg"}


@pytest.mark.parametrize("optimizer", ENTRY)
@pytest.mark.parametrize("kind", ["shape", "type", "missing", "unknown", "index", "name", "step"])
def test_every_restored_tensor_is_checked(
    crops: Crops, tmp_path: Path, optimizer: str, kind: str
) -> None:
    folder = run(crops, tmp_path / "run", 1, optimizer=optimizer)
    state = load_file(folder / "state.safetensors")
    key = first(state, ENTRY[optimizer])
    if kind == "shape":
        state[key] = torch.zeros(3)
    elif kind == "type":
        state[key] = state[key].to(torch.int64)
    elif kind == "missing":
        if optimizer == "muon":  # its only one: the weight counts as never updated
            key = "live.network.head.weight"
        del state[key]
    elif kind == "unknown":
        state["optimizer.network.0.foo"] = torch.zeros(())
    elif kind == "index":
        state[key.replace(key.split(".")[2], "100000", 1)] = state[key].clone()
    elif kind == "name":
        state["optimizer.other.0.exp_avg"] = torch.zeros(3)
    elif kind == "step":
        key = first(state, ".step")
        state[key] = torch.zeros(5)
    rewrite(folder, state)
    with pytest.raises(CheckpointError, match=r"in .*run.step-00000001 do not fit its config"):
        run(crops, tmp_path / "run", 2, resume=True, optimizer=optimizer)


@pytest.mark.parametrize("key, value", [
    ("live.network.tail.bias", torch.zeros(4)), ("live.x", torch.zeros(4)),
    ("live.network.tail.bias", torch.zeros(3, dtype=torch.float64)),
])
def test_weights_in_training_are_checked(
    crops: Crops, tmp_path: Path, key: str, value: torch.Tensor
) -> None:
    folder = run(crops, tmp_path / "run", 1)
    state = load_file(folder / "state.safetensors")
    rewrite(folder, {**state, key: value})
    with pytest.raises(CheckpointError, match="the weights in training in .* do not fit"):
        run(crops, tmp_path / "run", 2, resume=True)


@pytest.mark.parametrize("change", [
    {"step": None}, {"step": -1}, {"step": 1.5}, {"seconds": "x"}, {"seconds": float("nan")},
    {"loss_scale": [0, 0]}, {"loss_scale": 3}, {"window": [3]}, {"window": [{"x": 1.0}]},
    {"window": [{"network": "1"}]}, {"settings": [1]}, {"best": "x"},
])
def test_the_record_of_a_training_is_checked(crops: Crops, tmp_path: Path, change: dict) -> None:
    folder = run(crops, tmp_path / "run", 1)
    rewrite(folder, load_file(folder / "state.safetensors"), **change)
    with pytest.raises(CheckpointError, match="no record of a training|has losses of other"):
        run(crops, tmp_path / "run", 2, resume=True)


def test_an_unknown_precision_of_a_resumed_run_is_named(crops: Crops, tmp_path: Path) -> None:
    folder = run(crops, tmp_path / "run", 1)
    settings = read_manifest(folder)["settings"] | {"dtype": "float1"}
    rewrite(folder, load_file(folder / "state.safetensors"), settings=settings)
    with pytest.raises(CheckpointError, match="in dtype 'float1', which must be one of"):
        fit("ddpm", DDPM(**SMALL), crops, tmp_path / "run", Settings(steps=2, batch=2),
            resume=True)


def test_a_checkpoint_without_state_cannot_be_resumed(crops: Crops, tmp_path: Path) -> None:
    folder = run(crops, tmp_path / "run", 1)
    rewrite(folder, None)
    with pytest.raises(CheckpointError, match="holds no state.safetensors: training cannot"):
        run(crops, tmp_path / "run", 2, resume=True)


@pytest.mark.parametrize("line", [
    "x", "[" * 5000, "3", "null", "{}", '{"step": "1"}', '{"step": null}', "\xff",
])
def test_a_damaged_line_of_the_log_is_named(crops: Crops, tmp_path: Path, line: str) -> None:
    run(crops, tmp_path / "run", 1)
    path = tmp_path / "run" / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(CheckpointError, match="log.jsonl: line 2 is damaged .*: remove the line"):
        run(crops, tmp_path / "run", 2, resume=True)
    path.unlink()
    run(crops, tmp_path / "run", 2, resume=True)


@pytest.mark.parametrize("target", ["/dev/zero", "{}/absent", "{}/mine.txt", "fifo", "folder"])
def test_a_log_elsewhere_is_neither_read_nor_written(
    crops: Crops, tmp_path: Path, target: str
) -> None:
    run(crops, tmp_path / "run", 1)
    (tmp_path / "mine.txt").write_text("mine")
    path = tmp_path / "run" / "log.jsonl"
    if target == "fifo":
        os.mkfifo(path)
    elif target == "folder":
        path.mkdir()
    else:
        path.symlink_to(target.format(tmp_path))
    with pytest.raises(CheckpointError, match="log.jsonl (is a link|cannot be read)"):
        run(crops, tmp_path / "run", 25, resume=True)
    assert (tmp_path / "mine.txt").read_text() == "mine" and not (tmp_path / "absent").exists()


def command(out: Path, photos: Path, *more: object) -> list[str]:
    words = ["train", "ddpm", photos, "-o", out, "--steps", 2, "--batch", 2, "--crop", 16, "-q",
             "--set", "widths=[4,8]", "--set", "blocks=[1,1]", "--no-preview", "--save-minutes", 0,
             "--dtype", "float32"]
    return list(map(str, [*words, *more]))


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(out)[0].state_dict()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_was_killed_at_its_first_checkpoint_begins_again(
    crops: Crops, tmp_path: Path, resume: bool
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "run"
    succeed(*command(tmp_path / "whole", photos))
    left = out / "step-00000001"
    left.mkdir(parents=True)
    for name in ("model.safetensors", ".genprior-0123456789abcdef"):
        (left / name).write_bytes(b"half")
    (out / "log.jsonl").write_text('{"step": 1, "net')
    succeed(*command(out, photos, *(["--resume"] if resume else [])))
    assert not (left / ".genprior-0123456789abcdef").exists()
    assert load_checkpoint(out)[1]["step"] == 2
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(value, expected[key]) for key, value in weights(out).items())
    assert "holds a training run: add --resume" in refused(*command(out, photos))[1]


def test_the_first_checkpoint_is_killed_for_real(crops: Crops, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "run"
    program = (
        "import os, signal, sys\n"
        "from genprior.priors import checkpoint\n"
        "def killed(path, write):\n"
        "    if path.name == 'manifest.json':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    written(path, write)\n"
        "written, checkpoint.write_atomic = checkpoint.write_atomic, killed\n"
        "from genprior.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program, *command(out, photos)], env=environment)
    assert done.returncode == -signal.SIGKILL and not list(out.glob("*/manifest.json"))
    assert list(out.glob("step-*"))
    succeed(*command(out, photos, "--resume"))
    assert load_checkpoint(out)[1]["step"] == 2


def test_an_empty_folder_is_not_resumed(crops: Crops, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        run(crops, tmp_path / "run", 1, resume=True)
    run(crops, tmp_path / "run", 1)
    with pytest.raises(SettingError, match="holds a training run: resume it"):
        run(crops, tmp_path / "run", 1)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_was_killed_before_its_first_step_begins_again(
    crops: Crops, tmp_path: Path, resume: bool
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    run(crops, tmp_path / "run", 1, resume=resume)
    assert load_checkpoint(tmp_path / "run")[1]["step"] == 1


def test_remains_of_a_killed_run_are_removed(crops: Crops, tmp_path: Path) -> None:
    out, half = tmp_path / "run", ".genprior-0123456789abcdef"
    run(crops, out, 3, save_minutes=0)
    kept = sorted(path.name for path in out.iterdir())
    (out / "step-00000001").mkdir()
    (out / "samples").mkdir()
    for folder in (out, *(out / name for name in ("step-00000001", "step-00000003", "samples"))):
        (folder / half).write_bytes(b"half")
    run(crops, out, 3, resume=True)
    assert sorted(path.name for path in out.iterdir()) == sorted([*kept, "samples"])
    assert not list(out.rglob(half))


def test_nothing_is_removed_when_a_damaged_checkpoint_is_refused(
    crops: Crops, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(crops, out, 3, save_minutes=0)
    (out / "step-00000002" / "manifest.json").unlink()
    (out / "step-00000003" / "model.safetensors").write_bytes(b"")
    before = {path: path.read_bytes() for path in out.rglob("step-*/*")}
    with pytest.raises(CheckpointError):
        run(crops, out, 4, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("step-*/*")} == before


@pytest.mark.parametrize("resume", [False, True])
def test_several_damaged_checkpoints_are_no_run_that_was_killed_early(
    crops: Crops, tmp_path: Path, resume: bool
) -> None:
    out = tmp_path / "run"
    run(crops, out, 3, save_minutes=0)
    folders = sorted(out.glob("step-*"))
    assert len(folders) > 1
    for folder in folders:
        (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"without manifest\.json.*choose another folder"):
        run(crops, out, 4, resume=resume)
    assert sorted(out.glob("step-*/model.safetensors")) == [
        folder / "model.safetensors" for folder in folders
    ]
