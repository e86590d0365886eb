"""Precisions of devices."""

import warnings

import pytest
import torch

from genprior import degrade, restore
from genprior.core import devices
from genprior.core.devices import pick_dtype
from genprior.core.errors import PrecisionWarning
from genprior.operators.denoising import Denoising
from genprior.priors.ddpm import DDPM

CPU = torch.device("cpu")
SLOW = "this CPU has no instructions for bfloat16, which therefore takes 4 to 8 times longer"


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_float32_and_gives_no_warning(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: native)
    for name in ("auto", "float32"):
        assert pick_dtype(name, CPU) == "float32"
    assert pick_dtype("bfloat16", torch.device("cuda")) == "bfloat16"


def test_a_precision_that_is_emulated_gives_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, operator = DDPM(widths=(8, 16), blocks=(1, 1)).eval(), Denoising()
    y = degrade(torch.rand(2, 3, 8, 8), operator, 0.1)
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    with pytest.warns(PrecisionWarning, match=SLOW) as caught:
        restore(y, operator, prior, "hqs", 0.1, steps=2, dtype="bfloat16")
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore(y, operator, prior, "hqs", 0.1, steps=2, dtype="bfloat16")
