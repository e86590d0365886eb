"""Files of a training run: checkpoints, the log, and files of the user, which stay."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.api.factory import load_checkpoint
from genprior.core.errors import SettingError
from genprior.priors.checkpoint import newest
from genprior.priors.ddpm import DDPM
from genprior.training.crops import Crops
from genprior.training.loop import Settings, fit


def random_crops(folder, seed):
    folder.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "0.png")
    return Crops([folder], 16)


@pytest.fixture
def crops(tmp_path):
    return random_crops(tmp_path / "photos", 0)


@pytest.fixture
def others(tmp_path):
    return random_crops(tmp_path / "others", 1)


def run(crops, out, steps, resume=False, prior=None, validation=None, **more):
    torch.manual_seed(0)
    prior = prior or DDPM(widths=(4, 8), blocks=(1, 1))
    settings = Settings(steps=steps, batch=2, dtype="float32", **more)
    return fit("ddpm", prior, crops, out, settings, resume=resume, validation=validation)


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_prior_that_inpaints_is_validated(crops, others, tmp_path):
    prior = DDPM(widths=(4, 8), blocks=(1, 1), holes=True)
    run(crops, tmp_path / "run", 1, prior=prior, validation=others)
    assert log(tmp_path / "run")[0]["validation"] > 0
    assert load_checkpoint(tmp_path / "run" / "best")[1]["step"] == 1


class Broken(DDPM):
    """Its loss is finite and the gradient is not, from the third step on."""

    seen = 0

    def losses(self, x, noise):
        self.seen += 1
        losses = super().losses(x, noise)
        scale = float("inf") if self.seen > 2 else 1.0
        losses["network"].register_hook(lambda gradient: gradient * scale)
        return losses


def test_nan_weights_are_not_saved(crops, tmp_path):
    broken = Broken(widths=(4, 8), blocks=(1, 1))
    with pytest.raises(FloatingPointError, match="NaN or infinite after step 3 and not saved"):
        run(crops, tmp_path / "run", 3, prior=broken, save_minutes=0)
    assert newest(tmp_path / "run").name == "step-00000002"
    state = load_checkpoint(tmp_path / "run")[0].state_dict()
    assert all(value.isfinite().all() for value in state.values())


def test_a_checkpoint_is_not_written_twice(crops, others, tmp_path):
    folder = run(crops, tmp_path / "run", 2, validation=others, save_minutes=0)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = run(crops, tmp_path / "run", 2, resume=True, validation=others)
    assert again == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert [line["step"] for line in log(tmp_path / "run")] == [1, 2]


def test_what_a_user_puts_beside_the_checkpoints_stays(crops, tmp_path):
    out = tmp_path / "run"
    run(crops, out, 1)
    shutil.copytree(out / "step-00000001", out / "step-00000001-backup")
    (out / "step-notes.txt").write_text("mine")
    (out / "step-00000001" / "results").mkdir()
    (out / "step-00000001" / "notes.txt").write_text("mine")
    run(crops, out, 6, resume=True, save_minutes=0)
    assert newest(out).name == "step-00000006"
    assert (out / "step-00000001-backup" / "manifest.json").exists()
    assert (out / "step-notes.txt").exists() and (out / "step-00000001" / "notes.txt").exists()
    assert not (out / "step-00000001" / "manifest.json").exists()
    assert not (out / "step-00000003").exists()


def test_the_log_is_of_one_run(crops, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 20, "network": 9}\n')
    run(crops, tmp_path / "run", 20)
    assert [line["step"] for line in log(tmp_path / "run")] == [20]
    assert log(tmp_path / "run")[0]["network"] < 9


def test_weights_have_the_requested_memory_format(crops, tmp_path):
    for last in (True, False):
        prior = DDPM(widths=(4, 8), blocks=(1, 1))
        run(crops, tmp_path / str(last), 1, prior=prior, channels_last=last)
        weight = next(p for p in prior.parameters() if p.ndim == 4 and min(p.shape) > 1)
        assert weight.is_contiguous() is not last


def test_two_trainings_do_not_run_in_one_folder(crops, tmp_path):
    class Second(DDPM):
        """Starts another training in its first step."""

        def losses(self, x, noise):
            for resume in (False, True):
                with pytest.raises(SettingError, match="a training is running in .*run: wait for"):
                    run(crops, tmp_path / "run", 9, resume=resume)
            return super().losses(x, noise)

    second = Second(widths=(4, 8), blocks=(1, 1))
    run(crops, tmp_path / "run", 1, prior=second)
    assert run(crops, tmp_path / "run", 2, resume=True).name == "step-00000002"
