import json

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.checkpoint import load_checkpoint, read_manifest
from genprior.data import Crops
from genprior.errors import CheckpointError
from genprior.fit import Settings, fit
from genprior.priors.ddpm import DDPM


@pytest.fixture
def crops(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        pixels = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 32)).save(folder / f"{k}.png")
    return Crops([folder], 16)


def prior() -> DDPM:
    torch.manual_seed(0)
    return DDPM(widths=(8, 16), blocks=(1, 1))


def run(crops, out, steps, resume=False, **settings) -> dict[str, torch.Tensor]:
    settings = Settings(steps=steps, batch=4, warmup=2, dtype="float32", **settings)
    folder = fit("ddpm", prior(), crops, out, settings, resume=resume)
    return load_checkpoint(folder)[0].state_dict()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_resumes_bit_for_bit(crops, tmp_path, optimizer):
    whole = run(crops, tmp_path / "whole", 8, optimizer=optimizer)

    def kill(step: int, done: float, loss: float) -> None:
        if step == 5:
            raise Killed

    settings = Settings(
        steps=8, batch=4, warmup=2, dtype="float32", save_minutes=0, optimizer=optimizer
    )
    with pytest.raises(Killed):
        fit("ddpm", prior(), crops, tmp_path / "cut", settings, report=kill)
    resumed = run(crops, tmp_path / "cut", 8, resume=True, optimizer=optimizer)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_loss_falls_and_is_logged(crops, tmp_path):
    run(crops, tmp_path / "run", 120, lr=3e-3)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(20, 121, 20))
    assert lines[-1]["network"] < 0.8 * lines[0]["network"]


def test_old_checkpoints_go_and_the_manifest_tells_the_story(crops, tmp_path):
    run(crops, tmp_path / "run", 4, save_minutes=0)
    folders = sorted(p.name for p in (tmp_path / "run").glob("step-*"))
    assert len(folders) == 2
    manifest = read_manifest(tmp_path / "run" / folders[-1])
    assert manifest["step"] == 4 and manifest["settings"]["batch"] == 4


def test_errors(crops, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        run(crops, tmp_path / "nothing", 4, resume=True)
    with pytest.raises(ValueError, match="either steps or minutes"):
        Settings()
    broken = prior()
    torch.nn.init.constant_(broken.network.tail.bias, float("nan"))
    settings = Settings(steps=2, batch=2, dtype="float32")
    with pytest.raises(FloatingPointError, match="at step 1"):
        fit("ddpm", broken, crops, tmp_path / "nan", settings)
