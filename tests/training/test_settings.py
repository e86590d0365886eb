"""Effect of the training settings, and which of them a resumed run may change."""

import json
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genprior.api.factory import load_checkpoint
from genprior.core.errors import CheckpointError, SettingError
from genprior.priors.checkpoint import newest
from genprior.priors.ddpm import DDPM
from genprior.priors.gan import GAN
from genprior.training import state
from genprior.training.crops import Crops
from genprior.training.loop import Settings, fit

PLAIN = {"batch": 4, "warmup": 2, "dtype": "float32"}


def random_crops(seed: int) -> Crops:
    rng = np.random.default_rng(seed)
    return Crops([rng.integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)], 16)


@pytest.fixture
def crops() -> Crops:
    return random_crops(0)


@pytest.fixture
def others() -> Crops:
    return random_crops(1)


def network(**arguments) -> DDPM:
    torch.manual_seed(0)
    return DDPM(widths=(8, 16), blocks=(1, 1), **arguments)


def run(crops, out, prior=None, about=None, resume=False, report=None, validation=None, **more):
    settings = Settings(**PLAIN | {"steps": 4} | more)
    return fit("ddpm", prior or network(), crops, out, settings, about, resume, report,
               validation=validation)


def steps_of(crops, out, **settings) -> list[torch.Tensor]:
    """The weights at the beginning and after every step."""
    prior = network()
    seen = [flat(prior)]
    run(crops, out, prior, report=lambda *_: seen.append(flat(prior)), **settings)
    return seen


def flat(prior: DDPM) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in prior.parameters()]).clone()


def test_the_average_follows_the_weights(crops, tmp_path):
    seen = steps_of(crops, tmp_path, steps=5, lr=0.01, ema=0.2)
    average = seen[0]
    for step, weights in enumerate(seen[1:], 1):
        decay = min(0.2, step / (step + 10))
        average = decay * average + (1 - decay) * weights
    kept = flat(load_checkpoint(tmp_path)[0])
    torch.testing.assert_close(kept, average)
    assert (kept - seen[-1]).abs().max() > 1e-4


def test_steps_of_sgd_have_the_length_of_the_clipped_gradient_times_the_rate(crops, tmp_path):
    seen = steps_of(crops, tmp_path, steps=8, lr=0.5, clip=0.01, optimizer="sgd", warmup=4)
    lengths = [(b - a).norm().item() for a, b in zip(seen, seen[1:], strict=False)]
    falling = [0.5 + 0.5 * np.cos(np.pi * k / 8) for k in range(8)]
    rates = np.minimum([0.25, 0.5, 0.75, 1, 1, 1, 1, 1], falling)
    np.testing.assert_allclose(lengths, 0.5 * 0.01 * rates, rtol=2e-3)


def test_a_resumed_run_may_be_longer_but_not_different(crops, tmp_path):
    about = {"data": ["a"], "crop": 16}
    run(crops, tmp_path, about=about)
    run(crops, tmp_path, about=about, resume=True, steps=5, accumulate=2, save_minutes=1.0)
    message = ("batch was 4, now it is 8, seed was 0, now it is 1: "
               "give the earlier values, or start another run.*--init")
    with pytest.raises(SettingError, match=message):
        run(crops, tmp_path, about=about, resume=True, batch=8, seed=1)
    with pytest.raises(SettingError, match=r"data was \['a'\], now it is \['b'\]: give"):
        run(crops, tmp_path, about=about | {"data": ["b"]}, resume=True)
    message = "objective was edm, now it is eps: give the same --set"
    with pytest.raises(CheckpointError, match=message):
        run(crops, tmp_path, network(objective="eps"), about, resume=True)
    with pytest.raises(CheckpointError, match="is a ddpm, not a gan"):
        fit("gan", GAN(size=(16, 16), widths=(4, 8)), crops, tmp_path, Settings(steps=9), None,
            True)


def test_a_gan_resumes_bit_for_bit(crops, tmp_path):
    def gan_run(out, resume=False, report=None):
        torch.manual_seed(0)
        prior = GAN(size=(16, 16), widths=(4, 8), loss="wgan-gp", critic_steps=2)
        settings = Settings(**PLAIN, steps=6, save_minutes=0)
        return fit("gan", prior, crops, out, settings, None, resume, report)

    def kill(step, done, loss):
        if step == 4:
            raise KeyboardInterrupt

    whole = load_checkpoint(gan_run(tmp_path / "whole"))[0].state_dict()
    with pytest.raises(KeyboardInterrupt):
        gan_run(tmp_path / "cut", report=kill)
    resumed = load_checkpoint(gan_run(tmp_path / "cut", resume=True))[0].state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.fixture
def not_ended():
    """Fails where SIGTERM would end the process."""
    def fail(number, frame):
        raise AssertionError("ended by SIGTERM")

    before = signal.signal(signal.SIGTERM, fail)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_checkpoint_to_resume_from(crops, tmp_path, not_ended, number):
    def interrupt(step, done, loss):
        if step == 3:
            signal.raise_signal(number)

    whole = load_checkpoint(run(crops, tmp_path / "whole"))[0].state_dict()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="interrupted at step 3, which is saved"):
        run(crops, tmp_path / "cut", report=interrupt)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert newest(tmp_path / "cut").name == "step-00000003"
    resumed = load_checkpoint(run(crops, tmp_path / "cut", resume=True))[0].state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_validation_takes_no_more_memory_than_a_step(crops, others, tmp_path):
    class MonitoredDenoiser(DDPM):
        def losses(self, x, noise):
            assert len(x) <= 2 and (self.training or not torch.is_grad_enabled())
            return super().losses(x, noise)

    torch.manual_seed(0)
    watched = MonitoredDenoiser(widths=(8, 16), blocks=(1, 1))
    run(crops, tmp_path / "parts", watched, validation=others, accumulate=2)
    run(crops, tmp_path / "whole", validation=others)
    notes = [json.loads((tmp_path / name / "log.jsonl").read_text())["validation"]
             for name in ("parts", "whole")]
    assert notes[0] == pytest.approx(notes[1], rel=1e-5)


def test_a_gan_has_no_validation(crops, others, tmp_path):
    with pytest.raises(SettingError, match="the losses of a gan do not measure its quality"):
        fit("gan", GAN(size=(16, 16), widths=(4, 8)), crops, tmp_path,
            Settings(steps=1), validation=others)


def test_the_best_weights_are_kept(crops, others, tmp_path):
    run(crops, tmp_path, validation=others, steps=6, save_minutes=0, lr=0.003)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    best = min((line for line in lines if "validation" in line), key=lambda x: x["validation"])
    manifest = load_checkpoint(tmp_path / "best")[1]
    assert len(list((tmp_path / "best").iterdir())) == 1
    assert manifest["step"] == best["step"] and manifest["best"] == best["validation"]
    assert "state.safetensors" not in manifest["files"]
    assert load_checkpoint(tmp_path)[1]["step"] == 6


def test_the_best_weights_outlive_a_kill(crops, others, tmp_path, monkeypatch):
    run(crops, tmp_path, validation=others)
    before = load_checkpoint(tmp_path / "best")[1]["step"]

    def killed(folder, *rest, **more):
        if folder.parent.name == "best":
            raise KeyboardInterrupt
        return training_save(folder, *rest, **more)

    training_save = state.save_checkpoint
    monkeypatch.setattr(state, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run(crops, tmp_path, validation=others, resume=True, steps=40, save_minutes=0, lr=5e-4)
    assert load_checkpoint(tmp_path / "best")[1]["step"] == before


def test_tensorboard_is_optional(crops, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SettingError, match=r'pip install "genprior\[tensorboard\]"'):
        fit("ddpm", network(), crops, tmp_path, Settings(**PLAIN, steps=1), tensorboard=True)


def test_tensorboard_gets_the_log(crops, tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, *scalar):
            written.append(scalar)

        def close(self):
            written.append("closed")

    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    fit("ddpm", network(), crops, tmp_path, Settings(**PLAIN, steps=20), tensorboard=True)
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert written[0] == str(tmp_path / "tensorboard") and written[-1] == "closed"
    assert ("network", line["network"], 20) in written
