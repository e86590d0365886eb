"""Antithetic sampling: pairs of samples with noise of opposite signs."""

import math
from pathlib import Path

import pytest
import torch
from small import batch

from genprior import degrade, estimate_prior, load_prior, make_operator, restore
from genprior.core.metrics import crps
from genprior.evaluation.scores import score
from genprior.inverse.baselines.deepinv_method import Peer
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.priors.ddpm import DDPM
from genprior.priors.texture import Texture

SIGMA = 0.1
OPTIONS = {"noise_std": SIGMA, "steps": 2}


@pytest.fixture(scope="module")
def prior(weights: Path) -> DDPM:
    return load_prior(weights)


@pytest.fixture(scope="module")
def texture() -> Texture:
    return estimate_prior("texture", batch(1), margin=0)


def test_the_std_is_that_within_and_between_pairs(prior: DDPM) -> None:
    result = restore(batch(), make_operator("denoise"), prior, samples=4, **OPTIONS)
    a, b = result.samples[:, :2], result.samples[:, 2:]
    variance = ((a - b) ** 2 / 4).mean(1) + ((a + b) / 2).var(1)
    torch.testing.assert_close(result.std, variance.sqrt(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(result.mean, result.samples.mean(1), rtol=0, atol=1e-4)


def test_the_first_two_samples_are_independent_and_stay_the_same(prior: DDPM) -> None:
    operator = make_operator("denoise")
    paired = restore(batch(), operator, prior, samples=4, **OPTIONS)
    free = restore(batch(), operator, prior, samples=4, antithetic=False, **OPTIONS)
    fewer = restore(batch(), operator, prior, samples=2, **OPTIONS)
    assert (paired.antithetic, free.antithetic, fewer.antithetic) == (True, False, False)
    for more in (paired, free):  # a batch of other size may round differently
        torch.testing.assert_close(fewer.samples, more.samples[:, :2], rtol=0, atol=1e-5)
    assert (paired.samples[:, 2:] - free.samples[:, 2:]).abs().mean() > 0.01
    residuals = paired.samples - paired.mean[:, None]
    for first, second in ((0, 2), (1, 3)):
        a, b = residuals[:, first].flatten(), residuals[:, second].flatten()
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] < -0.3


def test_pairs_are_the_same_in_a_batch_and_alone(prior: DDPM) -> None:
    operator = make_operator("denoise")
    many = restore(batch(2), operator, prior, samples=3, **OPTIONS)
    alone = restore(batch(2)[1:], operator, prior, samples=3, index=1, **OPTIONS)
    assert torch.equal(many.samples[1:], alone.samples)


def test_a_pair_has_the_exact_mean_of_a_gaussian(texture: Texture) -> None:
    x, operator = batch(1), make_operator("superres", factor=2, boundary="circular")
    y = degrade(x, operator, SIGMA)
    best = restore(y, operator, texture, GaussianPosterior("mean"), SIGMA).image
    drawn = restore(y, operator, texture, "gaussian", SIGMA, samples=4)
    torch.testing.assert_close(drawn.mean, best, rtol=0, atol=1e-4)
    free = restore(y, operator, texture, "gaussian", SIGMA, samples=4, antithetic=False)
    assert (free.mean - best).square().mean().sqrt() > 0.1 * drawn.std.mean()
    assert drawn.std.square().mean() == pytest.approx(free.std.square().mean().item(), rel=0.1)


def test_methods_with_their_own_noise_are_not_paired(prior: DDPM) -> None:
    y = degrade(batch(1), make_operator("denoise"), SIGMA)
    operator = make_operator("denoise")
    result = restore(y, operator, prior, Peer("diffpir", (("max_iter", 3),)), SIGMA, samples=4)
    assert not result.antithetic
    assert torch.allclose(result.std, result.samples.std(1), atol=1e-6)
    assert len({sample.sum().item() for sample in result.samples[0]}) == 4


def test_partners_are_not_compared_in_the_crps(prior: DDPM) -> None:
    operator = make_operator("denoise")
    result = restore(batch(), operator, prior, samples=4, **OPTIONS)
    expected = crps(result.samples, batch(), antithetic=True)
    for got, number in zip(score(result, batch()), expected, strict=True):
        assert math.isclose(got["crps"], number.item(), rel_tol=1e-6)
