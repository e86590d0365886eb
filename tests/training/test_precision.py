"""Default precision of a training, by device and of a resumed run."""

import platform
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from genprior.core.devices import has_bfloat16
from genprior.core.errors import CheckpointError, SettingError
from genprior.priors.checkpoint import read_manifest
from genprior.priors.ddpm import DDPM
from genprior.training import settings
from genprior.training.crops import Crops
from genprior.training.loop import Settings, fit


def run(out: Path, steps: int, resume: bool = False, **more: object) -> str:
    """Trains, and returns the recorded precision."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    settings = Settings(steps=steps, batch=2, warmup=2, **more)
    prior = DDPM(widths=(4, 8), blocks=(1, 1))
    folder = fit("ddpm", prior, Crops([images], 16), out, settings, resume=resume)
    return read_manifest(folder)["settings"]["dtype"]


@pytest.mark.parametrize("native, expected", [(False, "float32"), (True, "bfloat16")])
def test_a_cpu_trains_in_the_precision_it_has_instructions_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool, expected: str
) -> None:
    other = {"float32": "bfloat16", "bfloat16": "float32"}[expected]
    monkeypatch.setattr(settings, "has_bfloat16", lambda device: native or device.type != "cpu")
    assert run(tmp_path / "usual", 1) == expected
    assert run(tmp_path / "given", 1, dtype=other) == other
    gpu = settings.with_dtype(Settings(steps=1), torch.device("cuda"), None)
    assert gpu.dtype == "bfloat16"


def test_a_resumed_training_keeps_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, 2, dtype="bfloat16")
    monkeypatch.setattr(settings, "has_bfloat16", lambda device: False)
    assert run(tmp_path, 4, resume=True) == "bfloat16"
    with pytest.raises(SettingError, match="dtype was bfloat16, now it is float32"):
        run(tmp_path, 5, resume=True, dtype="float32")
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        run(tmp_path / "none", 1, resume=True)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="asks Linux on x86"
)
def test_bfloat16_support_is_that_of_proc_cpuinfo() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(line for line in lines if line.startswith("flags")).split()
    assert has_bfloat16(torch.device("cpu")) == ("avx512_bf16" in flags)
