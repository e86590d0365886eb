"""Properties that every Gaussian prior must have, against dense float64 algebra."""

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.priors.base import Gaussian


def identity(shape: torch.Size) -> Tensor:
    """Returns all unit images of shape (1, C, H, W), as a batch."""
    return torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape[1:])


def dense_cov(prior: Gaussian, shape: torch.Size) -> Tensor:
    """Returns the covariance as a matrix."""
    return prior.cov(identity(shape)).flatten(1)


def check_gaussian(prior: Gaussian, shape: torch.Size) -> None:
    """Checks that mean, covariance, its square root and the denoiser agree."""
    S, mean = dense_cov(prior, shape), prior.mean(shape).double().expand(shape).flatten()
    assert torch.allclose(S, S.T, rtol=0, atol=1e-13)

    latents = torch.Size(prior.latent_shape(shape))
    basis = torch.eye(latents.numel(), dtype=torch.float64).reshape(-1, *latents[1:])
    zero = prior.decode(torch.zeros_like(basis[:1]), shape).flatten()
    assert torch.allclose(zero, mean, rtol=0, atol=1e-13)
    L = prior.decode(basis, torch.Size((len(basis), *shape[1:]))).flatten(1) - zero
    assert_close(L.T @ L, S, 1e-12)

    factor = prior.factor(shape, zero)
    w = torch.eye(torch.Size(factor.shape).numel(), dtype=torch.float64)
    F = factor.apply(w.reshape(-1, *factor.shape)).flatten(1).T
    assert_close(F @ F.T + factor.floor**2 * torch.eye(len(S), dtype=S.dtype), S, 1e-12)
    assert_close(factor.adjoint(identity(shape)).flatten(1).T, F.T, 1e-12)

    x = torch.rand((3, *shape[1:]), generator=generator(5), dtype=torch.float64)
    sigma = torch.tensor([0.02, 0.1, 1.0], dtype=torch.float64)
    for i, s in enumerate(sigma.tolist()):
        gain = torch.linalg.solve(S + s**2 * torch.eye(len(S), dtype=S.dtype), S).T
        expected = mean + gain @ (x[i].flatten() - mean)
        for got in (prior.denoise(x, sigma)[i], prior.denoise(x[i : i + 1], s)[0]):
            assert_close(got.flatten(), expected, 1e-10)

    # the limit sigma -> 0: the nearest image in the support of the prior
    values, vectors = torch.linalg.eigh(S)
    inside = vectors[:, values > 1e-12 * values.max()]
    expected = mean + inside @ (inside.T @ (x[0].flatten() - mean))
    assert_close(prior.denoise(x[:1], 0.0).flatten(), expected, 1e-10)


def dense_log_prob(x: Tensor, mean: Tensor, S: Tensor) -> Tensor:
    """Returns log N(x; mean, S) for images x."""
    law = torch.distributions.MultivariateNormal(mean, S)
    return law.log_prob(x.flatten(1))


def assert_close(a: Tensor, b: Tensor, rtol: float) -> None:
    """Asserts that the norm of a - b is at most rtol times that of b."""
    assert a.shape == b.shape
    error = (a - b).norm() / b.norm()
    assert error <= rtol, f"relative error {error:.1e}"


def noise(x: Tensor, seed: int = 0) -> Noise:
    """Returns a random stream for each image of a batch."""
    return Noise(seed, range(len(x)))


def generator(seed: int) -> torch.Generator:
    """Returns a seeded generator."""
    return torch.Generator().manual_seed(seed)
