from dataclasses import replace

import pytest
import torch
from contracts import check_solver
from oracles import Dense

from genprior.core.schedules import sigma_steps
from genprior.evaluation.gaussian_theory.exact_laws import law_of
from genprior.inverse.diffusion.pnp_dm import PnPDM
from genprior.operators.inpainting import Inpainting

STD, NOISE_STD = 0.2, 0.05


def test_laws() -> None:
    check_solver(PnPDM(steps=3, inner=2))


def recursion(solver: PnPDM, known: bool) -> tuple[float, float]:
    """Gain and variance of one pixel, independent and N(1/2, STD^2), measured or not."""
    gain, variance = 0.0, 0.0
    for sweep in range(solver.steps):
        rho = max(solver.rho_max * solver.decay**sweep, solver.rho_min)
        precision = 1 / rho**2 + (1 / NOISE_STD**2 if known else 0)
        stays = 1 / rho**2 / precision
        gain = stays * gain + (1 - stays)
        variance = stays**2 * variance + 1 / precision
        levels = [*sigma_steps(solver.inner, rho, solver.sigma_min), 0.0]
        for s, t in zip(levels, levels[1:], strict=False):
            keep = t**2 / s**2
            slope = keep + (1 - keep) * STD**2 / (STD**2 + s**2)
            gain = slope * gain
            variance = slope**2 * variance + t**2 * (1 - keep)
    return gain, variance


@pytest.mark.parametrize("steps", [1, 30])
def test_samples_have_the_law_of_a_gibbs_sampler(steps: int) -> None:
    solver = PnPDM(steps, inner=4, rho_min=0.1, decay=0.9)
    keep = torch.tensor([[[[True, False]]]])
    y = torch.zeros(1, 1, 1, 2).double()
    got, _ = law_of(solver, Inpainting(keep), Dense(std=STD, length=0), NOISE_STD, y)
    for pixel, known in ((0, True), (1, False)):
        gain, variance = recursion(solver, known)
        assert got.G[pixel, pixel].item() == pytest.approx(gain if known else 0, rel=1e-9)
        assert got.V[pixel, pixel].item() == pytest.approx(variance, rel=1e-9)
    assert got.V[0, 1].abs().item() < 1e-12


def test_small_couplings_and_many_steps_lead_to_the_posterior() -> None:
    exact_gain = STD**2 / (STD**2 + NOISE_STD**2)
    exact = STD**2 * NOISE_STD**2 / (STD**2 + NOISE_STD**2)
    near = PnPDM(400, 200, rho_max=1.0, rho_min=0.01, decay=0.9, sigma_min=1e-4)
    gain, variance = recursion(near, known=True)
    assert gain == pytest.approx(exact_gain, rel=0.01)
    assert variance == pytest.approx(exact, rel=0.02)
    far = recursion(replace(near, rho_min=0.1, sigma_min=0.005), known=True)[1]
    assert far > 1.2 * exact


@pytest.mark.parametrize("steps", [2, 5, 20, 100])
def test_the_coupling_falls_to_its_end_in_any_number_of_sweeps(steps: int) -> None:
    couplings = PnPDM(steps).couplings
    assert couplings[0] == 5.0 and couplings[-1] == pytest.approx(0.05, rel=1e-9)
    assert couplings == sorted(couplings, reverse=True)
    faster = [b / a for a, b in zip(couplings, couplings[1:], strict=False) if b > 0.05]
    assert all(factor <= 0.9 + 1e-12 for factor in faster)
    if steps == 100:
        assert couplings == PnPDM(steps, decay=0.9).couplings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, "decay in \\(0, 1\\), got 5, 1.0"),
        ({"rho_min": 0.001}, "sigma_min <= rho_min <= rho_max"),
    ],
)
def test_errors(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PnPDM(**settings)
