import math

import pytest
import torch
from contracts import check_solver, dense, measure
from oracles import Crooked, Dense, normals
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.calibration import z_scores
from genprior.evaluation.gaussian_theory.exact_laws import Problem
from genprior.inverse.diffusion.likelihood import log_likelihood, predicted_moments
from genprior.inverse.diffusion.moments import Moments, moments
from genprior.inverse.diffusion.smc import SMC, choose, resample
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.gmm import GMM


def test_laws() -> None:
    check_solver(SMC(steps=3, particles=3, iterations=2))


@pytest.mark.parametrize("size", [(4, 4), (6, 8)], ids=["dense", "krylov"])
@pytest.mark.parametrize("noise_std", [0.05, 0.3])
def test_the_likelihood_is_exact_for_gaussian_priors(
    size: tuple[int, int], noise_std: float
) -> None:
    prior, sigma, shape = Dense(length=0.7), 0.4, (1, *size)
    op = SuperResolution(2, "box") if size == (4, 4) else Inpainting(random_keep((1, *shape), 0.8))
    x = 0.5 + 0.4 * normals(1, 6, *shape)[0]
    y = measure(op, prior.draw(1, shape), torch.tensor(noise_std)).expand(6, -1, -1, -1)
    at = moments(prior, x, sigma)
    found = log_likelihood(y, op, at, torch.full((6,), noise_std**2).double(), 30)
    A = dense(op, x[:1])
    seen = A.abs().sum(dim=1) > 0
    A, S = A[seen], prior.cov(shape)
    C = S - S @ (S + sigma**2 * torch.eye(len(S)).double()).inverse() @ S
    gram = A @ C @ A.T + noise_std**2 * torch.eye(len(A)).double()
    D = prior.denoise(x, sigma).flatten(1)
    law = torch.distributions.MultivariateNormal(D @ A.T, gram)
    expected = law.log_prob(y.flatten(1)[:, seen])
    # one constant is left out, the same for all x
    difference = found - expected
    assert (difference - difference.mean()).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(4, 4), (6, 8)], ids=["dense", "krylov"])
def test_a_covariance_with_negative_eigenvalues_gives_a_likelihood(size: tuple[int, int]) -> None:
    x = normals(1, 3, 1, *size)[0]
    op = Inpainting(random_keep((1, 1, *size), 0.5))
    at = moments(Crooked(), x, 0.3)
    unit = torch.eye(x[0].numel()).double().reshape(-1, 1, 1, *size)
    J = torch.stack([at.cov(e.expand_as(x)).flatten(1) for e in unit], dim=2)
    assert torch.linalg.eigvalsh((J + J.mT) / 2).min() < -1e-3
    found = log_likelihood(op.A(x), op, at, torch.full((3,), 1e-4).double(), 8)
    assert found.isfinite().all()


def test_predicted_moments_are_exact_for_gaussian_priors() -> None:
    prior, shape = Dense(length=0.7), (1, 3, 4)
    x, x_next, v = (0.5 + 0.4 * n for n in normals(3, 2, *shape))
    after = predicted_moments(moments(prior, x, 0.4), x, x_next, 0.25, 12)
    there = moments(prior, x_next, 0.25)
    torch.testing.assert_close(after.mean, there.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(after.cov(v), there.cov(v), rtol=0, atol=1e-9)


def test_resampling_keeps_likely_particles_and_skips_runs_of_even_weights() -> None:
    w = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.3, 0.25, 0.25, 0.2]]).double()
    index, log_w = resample(w.log(), Noise(0, [0, 1]))
    assert index.reshape(2, 4)[0].tolist().count(0) >= 3
    assert torch.equal(index.reshape(2, 4)[1], torch.arange(4, 8))
    assert torch.equal(log_w.reshape(2, 4)[0], torch.zeros(4).double())
    assert torch.equal(log_w.reshape(2, 4)[1], w[1].log())
    counts = torch.zeros(4)
    for seed in range(400):
        counts += torch.bincount(choose(w[1:], 4, Noise(seed, [0])), minlength=4)
    torch.testing.assert_close(counts / 1600, w[1].float(), rtol=0, atol=0.02)


def test_one_answer_is_a_particle_chosen_by_weight() -> None:
    w = torch.tensor([[0.1, 0.1, 0.8]]).double().expand(3000, -1)
    counts = torch.bincount(choose(w, 1, Noise(0, range(3000))) % 3, minlength=3)
    torch.testing.assert_close(counts / 3000, w[0].float(), rtol=0, atol=0.03)


@pytest.mark.parametrize("steps", [1, 4])
def test_exact_for_gaussian_priors_in_any_number_of_steps(steps: int) -> None:
    runs, noise_std, shape = 500, 0.1, (1, 1, 4)
    prior = Dense()
    op = Inpainting(torch.tensor([[[[1, 0, 1, 0]]]]))
    y = measure(op, prior.draw(1, shape), torch.tensor(noise_std))
    A, S = torch.eye(4).double()[[0, 2]], prior.cov(shape)
    exact = Problem(S, A, noise_std)
    mean = 0.5 + exact.gain @ (y.flatten()[[0, 2]] - 0.5)
    noise = Noise(0, [(0, k) for k in range(runs)])
    solver = SMC(steps, particles=4, iterations=4, root_products=4)
    x = solver(y.expand(runs, -1, -1, -1), op, prior, noise_std, noise)
    z = z_scores(x.flatten(1), mean, exact.posterior_cov)
    assert z.mean(dim=0).abs().max() < 4 / math.sqrt(runs)
    assert abs(z.square().mean().item() - 1) < 4 * math.sqrt(2 / z.numel())


def test_weights_are_equal_for_gaussian_priors(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []

    def watch(log_w: Tensor, generator: Noise) -> tuple[Tensor, Tensor]:
        weights.append(log_w)
        return resample(log_w, generator)

    monkeypatch.setattr("genprior.inverse.diffusion.smc.resample", watch)
    op = Inpainting(torch.tensor([[[[1, 0, 1, 0]]]]))
    y = measure(op, Dense().draw(1, (1, 1, 4)), torch.tensor(0.1))
    # the first state is pure noise, and later likelihoods equal their predictions
    solver = SMC(4, particles=8, iterations=4, root_products=4, sigma_max=1e3)
    solver(y, op, Dense(), 0.1, Noise(0, [0]))
    assert len(weights) == 3
    for log_w in weights:
        assert (log_w - log_w.mean()).abs().max() < 0.02


def test_modes_have_their_posterior_weights() -> None:
    # two modes far apart; y is nearer to the rare one, but noisy
    means = torch.tensor([[[[-3.0, 0.0]]], [[[4.0, 0.0]]]]).double()
    prior = GMM(torch.tensor([0.85, 0.15]).double(), means, torch.eye(2).double().repeat(2, 1, 1))
    op, noise_std = Inpainting(torch.tensor([[[[1, 0]]]])), 3.0
    y = torch.tensor([[[[1.2, 0.0]]]]).double()
    posterior = prior.posterior(y.flatten()[:1], torch.tensor([[1.0, 0.0]]).double(), noise_std)
    weight = posterior.log_weights.exp()[1].item()
    cloud = SMC(30, particles=1000, root_products=3).cloud(
        y, op, prior, torch.tensor([noise_std]).double(), Noise(0, [0])
    )
    share = (cloud[0, :, 0, 0, 0] > 0.5).double().mean().item()
    inside = torch.distributions.Normal(0.0, 1.0)
    right = inside.cdf((posterior.means[1, 0] - 0.5) / posterior.variances[1].sqrt().min()).item()
    left = inside.cdf((0.5 - posterior.means[0, 0]) / posterior.variances[0].sqrt().min()).item()
    expected = weight * right + (1 - weight) * (1 - left)
    assert share == pytest.approx(expected, abs=0.06)


def test_errors() -> None:
    with pytest.raises(ValueError, match="particles must be at least 1, got 0"):
        SMC(particles=0)


@pytest.mark.parametrize(("size", "error"), [((4, 4), 1e-7), ((6, 8), 0.5)])
def test_the_likelihood_depends_on_the_determinant_of_the_covariance(
    size: tuple[int, int], error: float
) -> None:
    # for the larger size log det is estimated from one probe
    op, noise_std, shape = Inpainting(random_keep((1, 1, *size), 0.2)), 0.1, (1, *size)
    scale = torch.tensor([1.0, 4.0, 0.2]).double().reshape(-1, 1, 1, 1)
    S, mean = Dense(length=0.7).cov(shape), torch.full((3, *shape), 0.5).double()
    at = Moments(mean, lambda v: scale * (v.flatten(1) @ S).reshape(v.shape), 0.4)
    found = log_likelihood(op.A(mean), op, at, torch.full((3,), noise_std**2).double(), 30)
    A = dense(op, mean[:1])
    A = A[A.abs().sum(dim=1) > 0]
    grams = scale[:, 0] * (A @ S @ A.T) + noise_std**2 * torch.eye(len(A)).double()
    expected = -torch.logdet(grams) / 2
    found, expected = found - found[0], expected - expected[0]
    assert ((found - expected)[1:].abs() <= error * expected[1:].abs()).all()
