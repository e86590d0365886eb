import pytest
import torch
from gaussians import assert_close, dense_log_prob, generator

from genprior.priors.gmm import GMM

SHAPE = (1, 3, 2)


@pytest.fixture
def mixture():
    root = torch.randn(3, 6, 6, generator=generator(0), dtype=torch.float64) * 0.1
    means = torch.rand(3, *SHAPE, generator=generator(1), dtype=torch.float64)
    return GMM(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), means, root @ root.mT)


def covariances(mixture: GMM) -> torch.Tensor:
    return (mixture.vectors * mixture.variances[:, None]) @ mixture.vectors.mT


def batch(count: int = 4) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=generator(2), dtype=torch.float64)


def dense(x, weights, means, covs):
    logs = [
        w.log() + dense_log_prob(x, m.flatten(), S)
        for w, m, S in zip(weights, means, covs, strict=True)
    ]
    return torch.stack(logs).logsumexp(dim=0)


def test_log_prob_is_dense_log_prob(mixture):
    weights = torch.tensor([1, 2, 3], dtype=torch.float64) / 6
    expected = dense(batch(), weights, mixture.means, covariances(mixture))
    assert torch.allclose(mixture.log_prob(batch()), expected, rtol=1e-9)


def test_denoiser_is_tweedies_formula(mixture):
    sigma = torch.tensor([0.05, 0.1, 0.3, 1.0], dtype=torch.float64)
    x, weights = batch().requires_grad_(), mixture.log_weights.exp()
    for i, s in enumerate(sigma):
        noisy = covariances(mixture) + s**2 * torch.eye(6, dtype=torch.float64)
        log_prob = dense(x[i : i + 1], weights, mixture.means, noisy)
        score = torch.autograd.grad(log_prob.sum(), x)[0][i]
        assert_close(mixture.denoise(x, sigma)[i], x[i] + s**2 * score, 1e-10)


def test_jacobian_is_that_of_autograd(mixture):
    x, sigma = batch(2), torch.tensor([0.1, 0.4], dtype=torch.float64)
    J = mixture.jacobian(x, sigma)
    for i in range(2):
        expected = torch.autograd.functional.jacobian(
            lambda v, s=sigma[i]: mixture.denoise(v[None], s)[0], x[i]
        )
        assert_close(J[i], expected.reshape(6, 6), 1e-10)


def test_posterior_is_bayes_rule(mixture):
    A = torch.randn(2, 6, generator=generator(3), dtype=torch.float64)
    y, sigma = torch.tensor([[0.3, -0.4], [0.2, 0.2]], dtype=torch.float64)
    sigma = sigma[0]
    posterior = mixture.posterior(y, A, sigma.item())
    x = batch(5)
    noise = torch.distributions.Normal(torch.zeros_like(sigma), sigma)
    joint = mixture.log_prob(x) + noise.log_prob(y - x.flatten(1) @ A.T).sum(dim=1)
    evidence = joint - posterior.log_prob(x)
    assert torch.allclose(evidence, evidence[:1].expand(5), rtol=1e-8)


def test_samples_have_the_mean_and_covariance(mixture):
    x = mixture.sample(20000, generator(4)).flatten(1)
    weights = mixture.log_weights.exp()
    mean = weights @ mixture.means
    spread = mixture.means - mean
    cov = torch.einsum("k,kij->ij", weights, covariances(mixture))
    cov = cov + torch.einsum("k,ki,kj->ij", weights, spread, spread)
    assert (x.mean(dim=0) - mean).norm() < 3 * (cov.trace() / 20000) ** 0.5
    assert (torch.cov(x.T) - cov).norm() < 3 * cov.trace() / 20000**0.5


def test_expectation_maximisation_finds_the_modes(mixture):
    x = mixture.sample(3000, generator(5))
    fitted = GMM.from_images(x, 3, generator(0), floor=0.001)
    assert fitted.log_prob(x).mean() > mixture.log_prob(x).mean() - 0.01
    one = GMM.from_images(x, 1, generator(0), floor=0.001)
    noise = 0.001**2 * torch.eye(6, dtype=torch.float64)
    assert_close(covariances(one)[0], torch.cov(x.flatten(1).T, correction=0) + noise, 1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.log_prob(torch.zeros(1, 1, 2, 2)), "crop the images"),
        (lambda m: m.posterior(torch.zeros(2), torch.zeros(3, 6), 0.1), "matrix must be"),
        (lambda m: m.posterior(torch.zeros(2), torch.zeros(2, 6), 0.0), "noise_std positive"),
        (lambda m: GMM(torch.zeros(3), batch(3), m.vectors), "must be positive"),
        (lambda m: GMM(torch.ones(2), batch(3), m.vectors), "weights must be"),
        (lambda m: GMM.from_images(batch(), 5, generator(0)), "the number of images"),
    ],
)
def test_errors(mixture, call, message):
    with pytest.raises(ValueError, match=message):
        call(mixture)
