"""Exact resuming, several processes, precision and logs of a training."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import ONE_THREAD, on_one_node, on_two_nodes
from shell import levels, refused, save_photo, succeed

from genprior.api.factory import load_checkpoint
from genprior.priors.checkpoint import read_manifest
from genprior.priors.ddpm import DDPM
from genprior.registry import PRIORS, lookup
from genprior.training.crops import Crops
from genprior.training.loop import Settings, fit

TINY = ["--set", "widths=[8,16]", "--set", "blocks=[1,1]", "--crop", 16, "--dtype", "float32",
        "--warmup", 2, "--no-preview", "-q"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for k in range(3):
        save_photo(folder / f"{k}.png", start=60 * k)
    return folder


@pytest.fixture
def crops(photos) -> Crops:
    return Crops([photos], 16)


def train(crops, out, ranks=None, report=None, resume=False, steps=6, **more) -> Path:
    torch.manual_seed(0)
    prior = DDPM(widths=(8, 16), blocks=(1, 1))
    given = {"batch": 4, "warmup": 2, "dtype": "float32"} | {
        k: more.pop(k) for k in list(more) if k in Settings.__dataclass_fields__
    }
    settings = Settings(steps=steps, **given)
    return fit("ddpm", prior, crops, out, settings, None, resume, report, ranks, **more)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder)[0].state_dict()


def log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def command(photos: Path, out: Path, *more: object) -> list[str]:
    words = ["train", "ddpm", photos, "-o", out, "--steps", 60, "--batch", 4, *TINY, *more]
    return list(map(str, words))


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory) -> Path:
    """A training that was not interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    succeed(*command(photos, out))
    return out


def test_a_killed_training_resumes_exactly(photos, whole, tmp_path):
    words = command(photos, tmp_path, "--save-minutes", 0)
    process = subprocess.Popen([sys.executable, "-m", "genprior", *words], env=ONE_THREAD)
    until_step(23, process, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "step-00000060").exists()
    succeed(*command(photos, tmp_path, "--resume"))
    assert equal(tensors(tmp_path), tensors(whole))
    state = [safe_state(folder) for folder in (tmp_path, whole)]
    assert equal(*state)
    assert [(line["step"], line["network"]) for line in log(tmp_path)] == [
        (line["step"], line["network"]) for line in log(whole)
    ]


def until_step(step: int, process: subprocess.Popen, out: Path) -> None:
    """Waits for a checkpoint of a step, or of a later one."""
    deadline = time.monotonic() + 120
    while not any(int(p.parent.name[5:]) >= step for p in out.glob("step-*/manifest.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)


def safe_state(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "step-00000060" / "state.safetensors")


@pytest.fixture(scope="module")
def shared(photos, tmp_path_factory) -> Path:
    """The same training by two nodes with one process each."""
    out = tmp_path_factory.mktemp("shared") / "run"
    assert on_two_nodes(*command(photos, out)).returncode == 0
    return out


def test_two_nodes_do_what_one_does(whole, shared):
    logged, expected = log(shared), log(whole)
    assert [line["step"] for line in logged] == [20, 40, 60]
    for a, b in zip(logged, expected, strict=True):
        assert a["network"] == pytest.approx(b["network"], rel=1e-6)
    one, two = tensors(whole), tensors(shared)
    for key in one:
        assert torch.allclose(one[key], two[key], rtol=0, atol=1e-6), key
    assert read_manifest(shared / "step-00000060")["processes"] == 2


def test_two_killed_processes_resume_exactly(photos, shared, tmp_path):
    words = command(photos, tmp_path, "--save-minutes", 0)
    process = subprocess.Popen(on_one_node(*words), env=ONE_THREAD, start_new_session=True,
                               stderr=subprocess.DEVNULL)
    until_step(20, process, tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "step-00000060").exists()
    subprocess.run(on_one_node(*command(photos, tmp_path, "--resume")), env=ONE_THREAD, check=True,
                   timeout=300, capture_output=True)
    assert equal(tensors(tmp_path), tensors(shared))
    assert equal(safe_state(tmp_path), safe_state(shared))


@pytest.mark.parametrize("name, arguments", [
    ("ddpm", {"widths": (8, 16), "blocks": (1, 1)}),
    ("ddpm", {"widths": (8, 16), "blocks": (1, 1), "objective": "eps"}),
    ("ddpm", {"widths": (8, 16), "blocks": (1, 1), "holes": True}),
    ("vae", {"latent": 2, "widths": (4, 8), "noise": 0.1}),
    ("vae", {"latent": 2, "widths": (8,), "size": (16, 16), "likelihood": "bernoulli"}),
    ("hvae", {"latent": 2, "widths": (4, 8), "groups": (1, 1)}),
    ("glow", {"levels": 2, "depth": 2, "width": 8}),
    ("gan", {"widths": (4, 8), "size": (16, 16), "architecture": "style", "loss": "wgan-gp"}),
])
def test_splitting_a_batch_does_not_change_the_result(
    crops, tmp_path, name, arguments
):
    class Exact:
        def batch(self, *which):
            return crops.batch(*which).double()

    runs = []
    for parts in (1, 4):
        torch.manual_seed(0)
        prior = lookup(PRIORS, name, "prior")(**arguments).double()
        settings = Settings(steps=6, batch=8, warmup=1, dtype="float32", accumulate=parts)
        losses = []
        fit(name, prior, Exact(), tmp_path / str(parts), settings,
            report=lambda step, done, loss, losses=losses: losses.append(loss))
        runs.append((losses, dict(prior.named_parameters())))
    (losses, one), (others, two) = runs
    assert losses == pytest.approx(others, rel=1e-6) and len(set(losses)) == 6
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-9)


@pytest.mark.parametrize("workers", [1])
def test_reader_processes_do_not_change_the_result(crops, tmp_path, workers):
    a = train(crops, tmp_path / "a", steps=3)
    b = train(crops, tmp_path / "b", steps=3, workers=workers)
    assert equal(tensors(a), tensors(b))


def test_the_callers_random_state_is_left_alone_and_dropout_repeats(crops, tmp_path):
    class Dropped(DDPM):
        def losses(self, x, noise):
            return super().losses(torch.nn.functional.dropout(x, 0.3), noise)

    results = []
    for name in "ab":
        torch.manual_seed(0)
        prior = Dropped(widths=(8, 16), blocks=(1, 1))
        torch.manual_seed(ord(name))
        before = torch.random.get_rng_state()
        settings = Settings(steps=3, batch=4, dtype="float32")
        fit("ddpm", prior, crops, tmp_path / name, settings)
        assert torch.equal(before, torch.random.get_rng_state())
        results.append(prior.state_dict())
    assert equal(*results)


def test_half_precision_follows_single(crops, tmp_path):
    runs = {d: train(crops, tmp_path / d, steps=20, dtype=d) for d in ("float32", "float16")}
    losses = {d: log(tmp_path / d)[0]["network"] for d in runs}
    assert losses["float16"] == pytest.approx(losses["float32"], rel=0.02)
    assert read_manifest(runs["float16"])["loss_scale"] == [8192.0, 20]


def test_a_gradient_that_overflows_is_skipped_and_the_scale_halved(crops, tmp_path):
    class Steep(DDPM):
        def losses(self, x, noise):
            steep = 1e35 if not hasattr(self, "seen") else 1.0
            self.seen = True
            return {k: v * steep for k, v in super().losses(x, noise).items()}

    prior = Steep(widths=(8, 16), blocks=(1, 1))
    before = {k: v.clone() for k, v in prior.state_dict().items()}
    settings = Settings(steps=1, batch=4, dtype="float16")
    folder = fit("ddpm", prior, crops, tmp_path, settings)
    assert equal(before, prior.state_dict())
    assert read_manifest(folder)["loss_scale"] == [4096.0, 0]


def test_previews_use_the_average_and_change_nothing(crops, tmp_path):
    seen = []

    def preview(prior):
        seen.append({k: v.clone() for k, v in prior.state_dict().items()})
        assert not prior.training
        return torch.rand(5, 3, 10, 12)

    a = train(crops, tmp_path / "a", preview=preview, save_minutes=0)
    b = train(crops, tmp_path / "b")
    assert equal(tensors(a), tensors(b)) and equal(seen[-1], tensors(a))
    picture = levels(tmp_path / "a/samples/step-00000006.png")
    assert picture.shape == (2 * 14 - 4, 3 * 16 - 4, 3)


def test_lines_after_the_last_checkpoint_are_written_again(crops, tmp_path):
    train(crops, tmp_path, steps=30)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 40, "network": 9.0}\n{"step": 41, "netw')
    train(crops, tmp_path, resume=True, steps=60)
    assert [line["step"] for line in log(tmp_path)] == [20, 40, 60]
    assert log(tmp_path)[1]["network"] < 9


def test_times_rates_and_speed_are_logged(photos, tmp_path):
    words = ["train", "ddpm", photos, "-o", tmp_path / "run", "--batch", 4, *TINY]
    started = time.monotonic()
    succeed(*words, "--time", "3s")
    assert 3 < time.monotonic() - started < 20
    manifest = read_manifest(next((tmp_path / "run").glob("step-*")))
    assert 3 <= manifest["seconds"] < 4 and manifest["settings"]["minutes"] == 0.05
    line = log(tmp_path / "run")[-1]
    assert 0 < line["lr"] < 5e-4 and line["images_per_second"] > 1
    cosine = 0.5 + 0.5 * math.cos(math.pi * line["seconds"] / 3)
    assert line["lr"] == pytest.approx(5e-4 * cosine, rel=0.2, abs=1e-5)


@pytest.mark.slow
def test_compiled_networks_learn_the_same(crops, tmp_path):
    a = train(crops, tmp_path / "a", steps=20)
    b = train(crops, tmp_path / "b", steps=20, compile=True)
    x, y = tensors(a), tensors(b)
    assert x.keys() == y.keys()
    assert log(tmp_path / "a")[0]["network"] == pytest.approx(log(tmp_path / "b")[0]["network"])


@pytest.mark.parametrize("prior, arguments", [
    ("vae", ["latent=2", "widths=[4,8]", "blocks=1"]),
    ("glow", []),
    ("gan", []),
])
def test_other_priors_train_through_the_same_command(photos, tmp_path, prior, arguments):
    words = [word for text in arguments for word in ("--set", text)]
    succeed("train", prior, photos, "-o", tmp_path / "run", "--steps", 2, "--batch", 4,
            "--crop", 16, "-q", *words)
    assert load_checkpoint(tmp_path / "run")[1]["prior"] == prior
    assert np.ptp(levels(tmp_path / "run/samples/step-00000002.png")) > 0


def test_errors(crops, photos, tmp_path):
    with pytest.raises(ValueError, match=r"multiple of processes x accumulate = 1 x 3, got 4"):
        train(crops, tmp_path / "a", accumulate=3)
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16"):
        Settings(steps=1, dtype="int8")
    code, message = refused(*command(photos, tmp_path / "none", "--resume"))
    assert code == 4 and f"no checkpoint in {tmp_path / 'none'}" in message
    code, message = refused("train", "ddpm", photos, "-o", tmp_path / "x", "--time", "20")
    assert code == 2 and "'20' is not a duration: write 90s, 20m or 2h" in message
