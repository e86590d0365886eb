"""Phase retrieval and over-exposure with the priors that ship, at published settings."""

import pytest
import torch
from skimage import data
from torch import Tensor

import genprior

# Settings of DAPS for each task, in units of [0, 1] (configurations of the authors' program).
DAPS = {
    "phase": {"rate": 1.25e-5, "rate_end": 1.25e-7, "tau": 0.01},
    "hdr": {"rate": 5e-6, "rate_end": 5e-8},
}


def psnr(x: Tensor, reference: Tensor) -> Tensor:
    """Returns the PSNR of each image, clipped to [0, 1], in dB."""
    return -10 * (x.clamp(0, 1) - reference).square().flatten(1).mean(dim=1).log10()


def photo() -> Tensor:
    """Returns a crop of a photo of which a part is clipped, (1, 3, 32, 32)."""
    crop = data.chelsea()[98:130, 128:160]
    return torch.from_numpy(crop.copy()).permute(2, 0, 1)[None] / 255


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("daps", DAPS["phase"]), ("dps", {})])
def test_phase_retrieval_of_a_digit(name: str, settings: dict) -> None:
    x = genprior.sample("ddpm:digits", 1, (28, 28), steps=40, seed=3).clamp(0, 1)
    op = genprior.make_operator("phase", oversampling=2)
    y = genprior.degrade(x, op, 0.05)
    solver = genprior.make_solver(name, **settings)
    result = genprior.restore(y, op, "ddpm:digits", solver, 0.05, samples=4)
    best = result.samples[:, result.misfits[0].argmin()]  # chosen without the reference
    turned = best.flip(-1, -2)  # which has the same magnitudes
    reached = torch.maximum(psnr(best, x), psnr(turned, x))
    assert reached > psnr(op.expansion_point(y), x) + 8


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("daps", DAPS["hdr"]), ("dps", {})])
def test_clipped_shadows_and_highlights_of_a_photo(name: str, settings: dict) -> None:
    x, op = photo(), genprior.make_operator("hdr", factor=2, pivot=0.5)
    y = genprior.degrade(x, op, 0.025)
    solver = genprior.make_solver(name, **settings)
    result = genprior.restore(y, op, "ddpm", solver, 0.025)
    assert psnr(result.image, x) > psnr(y, x) + 8


def test_the_default_restores_an_over_exposed_photo() -> None:
    x, op = photo(), genprior.make_operator("hdr", factor=2, pivot=0.5)
    y = genprior.degrade(x, op, 0.025)
    result = genprior.restore(y, op, "ddpm", noise_std=0.025, steps=8)
    assert result.solver == "hqs"
    assert psnr(result.image, x) > psnr(op.pinv(y), x) + 1
