import pytest
import torch
from contracts import dense, measure
from oracles import Dense
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.calibration import sliced_wasserstein, z_scores
from genprior.evaluation.gaussian_theory.exact_laws import Problem
from genprior.inverse.diffusion.dense_particles import (
    dense_moments,
    is_gaussian,
    predicted,
    sample,
)
from genprior.inverse.diffusion.moment_matched import MomentMatched
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.gmm import GMM

SHAPE, NOISE_STD = (1, 1, 2, 4), 0.1


def mixture(spread: float = 0.5) -> GMM:
    """Three modes of 8 numbers."""
    g = torch.Generator().manual_seed(4)
    means = 0.5 + spread * torch.randn(3, *SHAPE[1:], generator=g, dtype=torch.float64)
    factors = torch.randn(3, 8, 8, generator=g, dtype=torch.float64)
    covariances = 0.01 * factors @ factors.mT / 8
    return GMM(torch.tensor([0.5, 0.3, 0.2]).double(), means, covariances)


def noise(count: int, image: int = 0) -> Noise:
    return Noise(0, [(image, k) for k in range(count)])


@pytest.mark.parametrize("op", [
    Inpainting(torch.tensor([1, 0, 0, 0, 1, 0, 1, 0]).reshape(SHAPE)),
    SuperResolution(2, "box"),
    Inpainting(random_keep(SHAPE, 0.9)),
], ids=["half", "superres", "few"])
def test_the_default_sampler_is_right_for_a_mixture(op: object) -> None:
    prior, count = mixture(), 400
    y = op.A(prior.means.mean(dim=0).reshape(SHAPE))
    A = dense(op, torch.zeros(SHAPE).double())
    seen = A.abs().sum(dim=1) > 0
    law = prior.posterior(y.flatten()[seen], A[seen], NOISE_STD)
    g = torch.Generator().manual_seed(1)
    exact, other = (law.sample(count, g).flatten(1) for _ in range(2))
    solver = MomentMatched()
    many = y.expand(count, *y.shape[1:])
    x = solver(many, op, prior, NOISE_STD, noise(count)).flatten(1)
    distances = [
        sliced_wasserstein(v, exact, torch.Generator().manual_seed(2)) for v in (x, other)
    ]
    spread = exact.std(dim=0).square().sum().sqrt().item()
    # resampled particles are less varied than as many exact samples
    assert distances[0] < 1.5 * distances[1] + 0.05 * spread
    # the sampler without weights is wrong where one number must tell the modes apart
    if len(A[seen]) == 1:
        plain = MomentMatched(particles=1)(many, op, prior, NOISE_STD, noise(count)).flatten(1)
        wrong = sliced_wasserstein(plain, exact, torch.Generator().manual_seed(2))
        assert wrong > 2 * distances[0]


@pytest.mark.parametrize("count", [1, 5])
def test_few_samples_are_particles_of_a_larger_run(count: int) -> None:
    prior, op = mixture(), Inpainting(random_keep(SHAPE, 0.9))
    y = op.A(prior.means[0].reshape(SHAPE))
    seen = op.mask.flatten() > 0.5
    law = prior.posterior(y.flatten()[seen], torch.eye(8).double()[seen], NOISE_STD)
    draws, sigmas = 150 // count, MomentMatched().sigmas
    x = torch.cat([
        sample(
            y.expand(count, *y.shape[1:]), op.select([0] * count), prior,
            torch.full((count,), NOISE_STD).double(), noise(count, image), sigmas[::2], 16,
        ) for image in range(draws)
    ]).flatten(1)
    nearest = (x[:, None] - law.means).square().sum(dim=2).argmin(dim=1)
    shares = torch.bincount(nearest, minlength=3) / len(x)
    assert (shares - law.log_weights.exp()).abs().max() < 4 * (0.25 / draws) ** 0.5


def test_steps_are_exact_for_gaussian_priors() -> None:
    prior, op, count = Dense(), Inpainting(random_keep((1, 1, 3, 4), 0.5)), 600
    y = measure(op, prior.draw(1, (1, 3, 4)), torch.tensor(NOISE_STD))
    seen = op.mask.flatten() > 0.5
    exact = Problem(prior.cov((1, 3, 4)), torch.eye(12).double()[seen], NOISE_STD)
    mean = 0.5 + exact.gain @ (y.flatten()[seen] - 0.5)
    levels = torch.full((count,), NOISE_STD).double()
    x = sample(
        y.expand(count, -1, -1, -1), op.select([0] * count), prior, levels, noise(count),
        [1e4, 0.3, 0.1], 1,
    ).flatten(1)
    z = z_scores(x, mean, exact.posterior_cov)
    assert z.square().mean().item() == pytest.approx(1, abs=5 * (2 / z.numel()) ** 0.5)
    assert count * z.mean(dim=0).square().mean().item() < 1 + 4 * (2 / z.shape[1]) ** 0.5


def test_moments_are_those_of_a_gaussian_prior() -> None:
    prior, shape, sigma, sigma_next = Dense(), (1, 3, 4), 0.4, 0.15
    x = prior.draw(5, shape)
    at = dense_moments(prior, x, sigma)
    S, one = prior.cov(shape), torch.eye(12).double()

    def cov(level: float) -> Tensor:
        return S - S @ (S + level**2 * one).inverse() @ S

    def matrix(at: object) -> Tensor:
        return (at.vectors * at.values[:, None]) @ at.vectors.mT

    torch.testing.assert_close(matrix(at), cov(sigma).expand(5, -1, -1), rtol=1e-8, atol=1e-10)
    x_next = x.flip(0)
    expected = dense_moments(prior, x_next, sigma_next)
    found = predicted(at, x.flatten(1), x_next.flatten(1), sigma_next)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(matrix(found), matrix(expected), rtol=1e-8, atol=1e-10)


def test_priors_that_are_gaussian_and_large_images_are_sampled_as_before() -> None:
    sigmas = MomentMatched().sigmas
    small, large = torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 5, 4)
    assert is_gaussian(Dense(dtype=torch.float32), small, sigmas)
    assert is_gaussian(Dense(), small.double(), sigmas)
    for spread in (0.1, 0.5, 2.0):
        assert not is_gaussian(mixture(spread), torch.zeros(SHAPE).double(), sigmas)
    prior, op = Dense(), Blur(torch.ones(1, 2).double(), "circular")
    for like in (small, large):
        y = op.A(prior.draw(1, like.shape[1:]))
        with_particles, without = (
            MomentMatched(4, particles=count)(y, op, prior, 0.1, Noise(0, [0]))
            for count in (16, 1)
        )
        assert torch.equal(with_particles, without)
    assert MomentMatched().pools_samples(small.shape)
    assert not MomentMatched().pools_samples(large.shape)
    assert not MomentMatched(particles=1).pools_samples(small.shape)


def test_images_and_measurements_of_a_batch_do_not_influence_each_other() -> None:
    prior, op, sigma = mixture(), SuperResolution(2, "box"), torch.tensor([0.1, 0.1, 0.1]).double()
    y = op.A(prior.sample(3, torch.Generator().manual_seed(0)))
    y[2] = y[1]  # two samples of one measurement
    solver = MomentMatched(6, particles=4)
    x = solver(y, op, prior, sigma, Noise(0, [(3, 0), (5, 0), (5, 1)]))
    torch.testing.assert_close(
        x[:1], solver(y[:1], op, prior, sigma[:1], Noise(0, [(3, 0)])), rtol=1e-8, atol=1e-8
    )
    pair = solver(y[1:], op, prior, sigma[1:], Noise(0, [(5, 0), (5, 1)]))
    torch.testing.assert_close(x[1:], pair, rtol=1e-8, atol=1e-8)
    assert not torch.equal(x[1], x[2])


def test_measurements_without_noise_are_matched() -> None:
    prior, op = mixture(), Inpainting(random_keep(SHAPE, 0.5))
    y = op.A(prior.sample(1, torch.Generator().manual_seed(0)))
    x = MomentMatched()(y, op, prior, 0.0, Noise(0, [0]))
    assert (op.A(x) - y).abs().max() < 1e-3
    denoised = MomentMatched(5)(y, Denoising(), prior, 0.1, Noise(0, [0]))  # without particles
    assert torch.equal(denoised, MomentMatched(5, particles=1)(y, Denoising(), prior, 0.1,
                                                               Noise(0, [0])))
