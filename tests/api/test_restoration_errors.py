"""Error messages of `restore` and `sample` for invalid arguments."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small import HOLE, OPERATORS, Shrink, batch
from torch import Tensor

from genprior import load_prior, make_operator, restore, sample
from genprior.api.factory import make_solver
from genprior.core.errors import RestorationWarning, SettingError
from genprior.inverse.diffusion.diffpir import DiffPIR
from genprior.inverse.plug_and_play.hqs import HQS
from genprior.priors.ddpm import DDPM


@pytest.fixture(scope="module")
def prior(weights: Path) -> DDPM:
    return load_prior(weights)


DENOISE = make_operator("denoise")


def nan() -> Tensor:
    y = batch()
    y[1, 0, 2, 2] = float("nan")
    return y


BAD = {
    "holds NaN or infinite values": {"y": nan()},
    "floats must be in .0, 1., got values from": {"y": 255 * batch()},
    r"must be \(B, C, H, W\) or \(C, H, W\) with 1 or 3 channels": {"y": batch()[:, :2]},
    "an image must be a torch tensor, a numpy array or a Pillow image, got list": {"y": [1, 2]},
    "noise_std must be >= 0 and finite, in units of": {"noise_std": -0.1},
    "noise_std must be >= 0 and finite": {"noise_std": float("inf")},
    "noise_std must be one number or one for each of the 2 images, got 3": {
        "noise_std": [0.1, 0.1, 0.1]
    },
    "samples must be at least 1, got 0": {"samples": 0},
    "samples must be at most 100000, got 1000000000000000000000": {"samples": 10**21},
    "steps must be at least 1, got 0": {"solver": "hqs", "steps": 0},
    "seed must be 0 or a positive integer, got -1": {"seed": -1, "solver": "diffpir"},
    "seed must be a whole number, got None": {"seed": None},
    "seed must be a whole number, got 1.5": {"seed": 1.5},
    "samples must be a whole number, got 2.0": {"samples": 2.0},
    "samples must be a whole number, got '2'": {"samples": "2"},
    "steps must be a whole number, got 3.0": {"steps": 3.0, "solver": "hqs"},
    "quality must be one of fast, default, best, got 'good'": {"quality": "good"},
    "index must be a whole number, got None": {"index": None},
    "index must be a whole number, got 0.5": {"index": [0.5, 1]},
    "quantiles must be a list of numbers between 0 and 1, got 0.5": {
        "quantiles": 0.5, "samples": 2
    },
    "quantiles must be a list of numbers between 0 and 1, got None": {"quantiles": None},
    "quantiles must be a list of numbers between 0 and 1, got .'q05'.": {"quantiles": ["q05"]},
    "noise_std must be a number or one for each image, got .None, 0.1.": {
        "noise_std": [None, 0.1]
    },
    "noise_std must be a number or one for each image, got {'sigma'": {
        "noise_std": {"sigma": 0.1}
    },
    "progress must be a function of two numbers, got 3": {"progress": 3},
    "solver must be a name, or an object such as make_solver.'hqs'., got <class": {"solver": HQS},
    "index must hold one number for each of the 2 images, got 3": {"index": [1, 2, 3]},
    "unknown solver 'dsp': choose one of .*dps": {"solver": "dsp"},
    "solver 'hqs' has no setting 'turns', it has steps, coupling": {"solver": ("hqs", "turns")},
    "steps is for solvers given by name": {"solver": DiffPIR(), "steps": 3},
    "solver HQS returns one image, not 2 posterior samples": {"solver": HQS(), "samples": 2},
    "unknown prior 'dpm': choose one of": {"prior": "dpm"},
    "device 'tpu' is not available here: choose auto or cpu": {"device": "tpu"},
    "dtype must be one of float32, bfloat16, float16, got 'half'": {"dtype": "half"},
}


@pytest.mark.parametrize("message", BAD)
def test_arguments_are_checked_first(prior: DDPM, message: str) -> None:
    given = {"y": batch(), "prior": prior, "noise_std": 0.1} | BAD[message]
    with pytest.raises(ValueError, match=message):
        if isinstance(given.get("solver"), tuple):
            make_solver(given["solver"][0], **{given["solver"][1]: 1})
        restore(operator=make_operator("denoise"), **given)


def test_steps_are_for_solvers_that_have_them(prior: DDPM) -> None:
    with pytest.raises(SettingError, match="no setting 'steps', it has views: leave it out"):
        restore(batch(), make_operator("denoise"), prior, "posterior-mean", 0.1, steps=3)
    expected = restore(batch(), make_operator("denoise"), prior, None, 0.1)
    assert not any("steps" in warning for warning in expected.warnings)
    for solver in ("auto", None):  # hqs would make a poor denoiser of many steps
        with pytest.warns(RestorationWarning, match="steps 3 is not used: PosteriorMean, the def"):
            result = restore(batch(), make_operator("denoise"), prior, solver, 0.1, steps=3)
        assert torch.equal(result.image, expected.image)
    y = make_operator("inpaint", keep=~HOLE).A(batch())
    result = restore(y, make_operator("inpaint", keep=~HOLE), prior, steps=3)
    assert result.nfe == 3 and not any("steps" in warning for warning in result.warnings)


def test_a_quality_without_effect_gives_a_warning(prior: DDPM) -> None:
    with pytest.warns(RestorationWarning, match="quality 'fast' is not used: DiffPIR takes as"):
        fast = restore(batch(), DENOISE, prior, "diffpir", 0.1, steps=None, quality="fast")
    default = restore(batch(), DENOISE, prior, "diffpir", 0.1)
    assert torch.equal(fast.image, default.image) and not default.warnings
    used = restore(batch(), DENOISE, prior, None, 0.1, quality="fast")
    assert not any("quality" in warning for warning in used.warnings)


def test_whole_numbers_may_have_any_type(prior: DDPM) -> None:
    options = {"prior": prior, "solver": "diffpir", "noise_std": 0.1, "operator": DENOISE}
    expected = restore(batch(), samples=2, steps=2, seed=3, index=[4, 5], **options)
    result = restore(
        batch(), samples=np.int64(2), steps=torch.tensor(2), seed=np.uint8(3),
        index=torch.tensor([4, 5]), **options,
    )
    assert torch.equal(result.samples, expected.samples) and type(result.seed) is int


def test_invalid_priors_and_operators(prior: DDPM) -> None:
    with pytest.raises(TypeError, match="HQS needs a prior that is a denoiser, and Linear is not"):
        restore(batch(), make_operator("denoise"), torch.nn.Linear(2, 2), HQS())
    with pytest.raises(TypeError, match="must have the methods A and A_adjoint, dict has no A"):
        restore(batch(), {}, prior)
    with pytest.raises(TypeError, match="Linear can neither denoise nor decode"):
        sample(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="the mask must have the size of the image"):
        restore(batch()[..., 1:], make_operator("inpaint", keep=~HOLE), prior)
    with pytest.raises(ValueError, match="unknown operator 'inpant': choose one of"):
        make_operator("inpant")


@pytest.mark.parametrize("dtype, remedy", [("float32", "another solver"), ("float16", "float32")])
def test_nan_is_reported_with_the_evaluation_it_appeared_in(
    dtype: str, remedy: str
) -> None:
    class Broken(Shrink):
        calls = 0

        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            self.calls += 1
            return super().denoise(x, sigma) / (self.calls != 3)

    deblur = make_operator("deblur", **OPERATORS["deblur"])
    message = f"network gave NaN or infinite numbers in evaluation 3 of 48: use {remedy}"
    with pytest.raises(FloatingPointError, match=message):
        restore(batch(), deblur, Broken(), "hqs", 0.1, dtype=dtype)

    class Spoiling(type(deblur)):
        def proximal(self, y: Tensor) -> Callable[[Tensor, float | Tensor], Tensor]:
            return lambda x, rho: x / 0

    deblur = Spoiling(**OPERATORS["deblur"])
    with pytest.raises(FloatingPointError, match="was given NaN .* in evaluation 1 of 48: use"):
        restore(batch(), deblur, Shrink(), "hqs", 0.1)


def test_a_nan_result_is_an_error() -> None:
    class Last(HQS):
        def solve(self, *given: object) -> Tensor:
            return super().solve(*given) / 0

    with pytest.raises(FloatingPointError, match="solver Last gave NaN or infinite numbers: use"):
        restore(batch(), make_operator("denoise"), Shrink(), Last(), 0.1)
