"""The training loop: resuming, logging, checkpoints, groups of parameters, errors."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.api.factory import load_checkpoint
from genprior.core.errors import CheckpointError, SettingError
from genprior.priors.base import Trainable
from genprior.priors.checkpoint import read_manifest
from genprior.priors.ddpm import DDPM
from genprior.priors.vae import VAE
from genprior.training.crops import Crops
from genprior.training.loop import Settings, fit


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


@pytest.mark.parametrize("flushed", [False, True])
def test_the_flushing_of_denormals_is_restored(crops, tmp_path, flushed):
    torch.set_flush_denormal(flushed)
    try:
        run(crops, tmp_path, 1)
        assert (torch.tensor(1e-40) * 1 == 0) == flushed
    finally:
        torch.set_flush_denormal(False)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd", "rmsprop"])
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


def test_old_checkpoints_are_removed_and_the_manifest_is_complete(crops, tmp_path):
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


class Duel(torch.nn.Module, Trainable):
    """Two numbers that take turns: `low` wants a small product, `high` a large one."""

    config = {}

    def __init__(self) -> None:
        super().__init__()
        self.low = torch.nn.Parameter(torch.tensor([1.0]))
        self.high = torch.nn.Parameter(torch.tensor([1.0]))
        self.seen = []

    def groups(self):
        return {"low": [self.low], "high": [self.high]}

    def losses(self, x, noise):
        self.seen.append((x.sum().item(), noise.normal(x).sum().item()))
        product = (self.low * self.high).sum()
        return {"low": product, "high": -product}

    def updates(self):
        return [["low"]] * 3 + [["high"]]

    def adam(self, group):
        return {"lr": 2.0, "betas": (0.0, 0.9)} if group == "high" else {}


def test_groups_take_turns_each_with_its_own_batch_and_optimiser(crops, tmp_path):
    duel = Duel()
    settings = Settings(steps=1, batch=2, warmup=1, lr=0.01, dtype="float32")
    fit("ddpm", duel, crops, tmp_path / "run", settings)
    # The first steps of Adam have the length of the learning rate.
    assert duel.low.item() == pytest.approx(1 - 3 * 0.01, abs=1e-3)
    assert duel.high.item() == pytest.approx(1 + 2 * 0.01, abs=1e-5)
    assert len(set(duel.seen)) == 4


def test_groups_of_one_update_see_each_other_unchanged(crops, tmp_path):
    class Together(Duel):
        def updates(self):
            return [["low", "high"]]

    duel = Together()
    settings = Settings(steps=1, batch=2, warmup=1, lr=0.01, clip=10.0, dtype="float32")
    fit("ddpm", duel, crops, tmp_path / "run", settings)
    assert duel.low.item() == pytest.approx(0.99, abs=1e-6)
    assert duel.high.item() == pytest.approx(1.02, abs=1e-6)
    assert len(duel.seen) == 1


def test_a_folder_that_holds_a_training_is_refused(crops, tmp_path):
    run(crops, tmp_path, 3)
    with pytest.raises(SettingError, match="holds a training run: resume it"):
        run(crops, tmp_path, 2)
    assert run(crops, tmp_path, 4, resume=True)


@pytest.mark.parametrize("name", ["ddpm", "vae"])
def test_frozen_weights_are_refused(crops, tmp_path, name):
    settings = Settings(steps=1, batch=2, dtype="float32")
    frozen = {"ddpm": prior, "vae": VAE}[name]().requires_grad_(False)
    with pytest.raises(SettingError, match="frozen: call prior.requires_grad_"):
        fit(name, frozen, crops, tmp_path, settings)


def test_an_incomplete_first_checkpoint_is_no_training(crops, tmp_path):
    (tmp_path / "step-00000001").mkdir()
    assert run(crops, tmp_path, 2)


def test_symmetries_not_used_in_training_are_not_used_by_solvers(crops, tmp_path):
    crops.flip = crops.turn = False
    folder = fit("ddpm", prior(), crops, tmp_path, Settings(steps=1, batch=2, dtype="float32"))
    assert load_checkpoint(folder)[0].symmetries == [0]
