import pytest
import torch
from contracts import check_solver, measure
from golden import distance6
from oracles import Dense

from genprior.inverse.calibration import z_scores
from genprior.inverse.laws import Problem
from genprior.inverse.moment_matched import MomentMatched
from genprior.noise import Noise
from genprior.operators.inpainting import Inpainting


def test_laws() -> None:
    check_solver(MomentMatched(steps=3))


@pytest.mark.parametrize(
    "steps", [1, 2, 10, pytest.param(100, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("index", [0, 1])
def test_exact_for_gaussian_priors_in_any_number_of_steps(steps: int, index: int) -> None:
    solver = MomentMatched(steps, 36, calm=0, slack=0, sigma_max=1e4, sigma_min=0.01)
    assert distance6(solver, index) < 1e-5


def test_lanczos_draws_what_a_gaussian_prior_gives_in_closed_form() -> None:
    chains, noise_std, shape = 600, 0.05, (1, 5, 6)
    prior = Dense()  # only a denoiser to the sampler
    op = Inpainting(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) > 0.5)
    y = measure(op, prior.draw(1, shape), torch.tensor(noise_std))
    seen = op.mask.flatten() > 0.5
    A, S = torch.eye(30).double()[seen], prior.cov(shape)
    exact = Problem(S, A, noise_std)
    mean = 0.5 + exact.gain @ (y.flatten()[seen] - 0.5)
    noise = Noise(0, [(0, k) for k in range(chains)])
    x = MomentMatched()(y.expand(chains, -1, -1, -1), op, prior, noise_std, noise).flatten(1)
    z = z_scores(x, mean, exact.posterior_cov)
    # 2 % for 2 + 2 products a step, and 5 standard deviations of the draw
    assert z.square().mean().item() == pytest.approx(1, abs=0.02 + 5 * (2 / z.numel()) ** 0.5)
    assert z.mean(dim=0).square().mean().item() < 2 / chains
