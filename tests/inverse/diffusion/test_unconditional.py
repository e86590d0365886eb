import math

import pytest
import torch
from oracles import Dense, Silence

from genprior.core.random_streams import Noise
from genprior.core.schedules import Spacing, sigma_steps
from genprior.inverse.diffusion.unconditional import sample_denoiser

SHAPE = (1, 3, 4)


def variances(values: torch.Tensor, levels: list[float], eta: float) -> torch.Tensor:
    """Variance of each principal component of the answers, by the paper's recursion."""
    v = 0.25 + levels[0] ** 2
    for s, t in zip(levels, [*levels[1:], 0.0], strict=True):
        added2 = eta**2 * t**2 * (1 - t**2 / s**2)
        keep = math.sqrt(t**2 - added2) / s
        v = ((1 - keep) * values / (values + s**2) + keep) ** 2 * v + added2
    return v


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spacing", ["karras", "ddpm"])
def test_samples_of_a_gaussian_have_the_law_of_the_recursion(eta: float, spacing: Spacing) -> None:
    prior, num_samples, steps = Dense(), 3000, 15
    like = torch.zeros(num_samples, *SHAPE, dtype=torch.float64)
    x = sample_denoiser(prior, like, Noise(0, range(num_samples)), steps, eta, spacing)
    assert len(prior.calls) == steps
    values, vectors = torch.linalg.eigh(prior.cov(SHAPE))
    v = variances(values, sigma_steps(steps, 50.0, 0.005, spacing), eta)
    z = (x.detach() - 0.5).flatten(1) @ vectors / v.sqrt()
    # 5 standard deviations of the extreme of 12 means, of 12 variances and of 66 covariances
    assert z.mean(dim=0).abs().max() < 5 / math.sqrt(num_samples)
    error = z.mT @ z / num_samples - torch.eye(12, dtype=z.dtype)
    assert error.diagonal().abs().max() < 5 * math.sqrt(2 / num_samples)
    assert (error - error.diagonal().diag()).abs().max() < 5 / math.sqrt(num_samples)


@pytest.mark.parametrize(("eta", "bound"), [(0.0, 0.03), (1.0, 0.06)])
def test_many_steps_sample_the_prior(eta: float, bound: float) -> None:
    prior, num_samples = Dense(), 1000
    like = torch.zeros(num_samples, *SHAPE, dtype=torch.float64)
    x = sample_denoiser(prior, like, Noise(0, range(num_samples)), 250, eta).detach().flatten(1)
    values, vectors = torch.linalg.eigh(prior.cov(SHAPE))
    # discretisation takes less than `bound` off the variance of any component
    exact = variances(values, sigma_steps(250, 50.0, 0.005, "karras"), eta) / values
    assert (1 - bound < exact).all() and (exact < 1.001).all()
    z = (x - 0.5) @ vectors / values.sqrt()
    assert z.mean(dim=0).abs().max() < 5 / math.sqrt(num_samples)
    assert (z.var(dim=0) - 1).abs().max() < bound + 5 * math.sqrt(2 / num_samples)


def test_the_error_of_ddim_and_ddpm_falls_with_the_steps() -> None:
    values = torch.linalg.eigvalsh(Dense().cov(SHAPE))
    for eta in (0.0, 1.0):
        found = [
            variances(values, sigma_steps(steps, 50.0, 0.005, "karras"), eta)
            for steps in (25, 50, 100, 200)
        ]
        errors = [(v / values - 1).abs().max() for v in found]
        for coarse, fine in zip(errors, errors[1:], strict=False):
            assert 1.5 < coarse / fine < 2.5  # first order


def test_the_mean_is_exact() -> None:
    like = torch.zeros(1, *SHAPE, dtype=torch.float64)
    x = sample_denoiser(Dense(), like, Silence(), steps=7)
    torch.testing.assert_close(x.detach(), torch.full_like(like, 0.5), rtol=0, atol=1e-13)


def test_an_image_does_not_depend_on_its_batch_or_on_the_global_seed() -> None:
    prior, state = Dense(), torch.get_rng_state()
    like = torch.zeros(3, *SHAPE, dtype=torch.float64)
    together = sample_denoiser(prior, like, Noise(0, [3, 5, 8]), steps=6)
    alone = sample_denoiser(prior, like[:1], Noise(0, [5]), steps=6)
    other = sample_denoiser(prior, like[:1], Noise(1, [5]), steps=6)
    torch.testing.assert_close(alone[0], together[1], rtol=0, atol=1e-12)
    assert (other - alone).abs().max() > 0.01
    assert torch.equal(state, torch.get_rng_state())
    assert not together.requires_grad
