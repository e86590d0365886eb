import math

import pytest
import torch
from contracts import check_solver, dense, measure
from oracles import Dense, Stream
from torch import Tensor

from genprior.inverse.optimization.langevin import ImageLangevin, Langevin
from genprior.inverse.optimization.mala import mala
from genprior.inverse.optimization.objective import with_gradient
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep

SHAPE = (1, 3, 3)


def test_gradients_in_half_precision_are_of_order_one() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.Tanh(), torch.nn.Linear(32, 9))
    network.requires_grad_(False)

    def loss(z: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.float16):
            x = network(z).float()
        return (x - 0.5).square().sum(dim=1) * torch.tensor([1e8, 1.0, 1e-8])

    z = torch.ones(3, 4)
    value, gradient = with_gradient(loss, torch.tensor([1e8, 1.0, 1e-8]))(z)
    for i, scale in enumerate([1e8, 1.0, 1e-8]):
        torch.testing.assert_close(value[i] / scale, value[1], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient[i] / scale, gradient[1], rtol=5e-3, atol=1e-4)
    plain = with_gradient(loss)(z)[1]
    assert not plain[0].isfinite().all() and (plain[2] == 0).any()


@pytest.mark.parametrize("solver", [Langevin(8), ImageLangevin(8)], ids=str)
def test_laws(solver) -> None:
    check_solver(solver, ("inpainting", "superres"))


@pytest.mark.parametrize(
    "solver", [Langevin(160), ImageLangevin(400, step_size=1e-3)], ids=["latent", "image"]
)
def test_samples_of_a_gaussian_posterior_have_its_mean_and_covariance(solver) -> None:
    prior, chains, sigma = Dense(), 2000, 0.15
    op = Inpainting(random_keep((1, 1, 3, 3), 0.4))
    y = measure(op, prior.draw(1, SHAPE), torch.tensor(sigma)).expand(chains, -1, -1, -1)
    x = solver(y, op, prior, sigma, Stream()).flatten(1)
    S, A = prior.cov(SHAPE), dense(op, y[:1])
    K = S @ A.mT @ (A @ S @ A.mT + sigma**2 * torch.eye(len(A), dtype=S.dtype)).pinverse()
    mean = 0.5 + K @ (y[0].flatten() - A @ torch.full((9,), 0.5, dtype=S.dtype))
    values, vectors = torch.linalg.eigh(S - K @ A @ S)
    z = (x - mean) @ vectors / values.sqrt()
    # 5 standard deviations of the extreme of 9 means, of 9 variances and of 36 covariances
    assert z.mean(dim=0).abs().max() < 5 / math.sqrt(chains)
    error = z.mT @ z / chains - torch.eye(9, dtype=z.dtype)
    assert error.diagonal().abs().max() < 5 * math.sqrt(2 / chains)
    assert (error - error.diagonal().diag()).abs().max() < 5 / math.sqrt(chains)


def test_a_law_that_is_not_gaussian_against_quadrature() -> None:
    def energy(z: Tensor) -> Tensor:  # two unequal wells
        return ((z**2 - 1) ** 2 + 0.5 * z).sum(dim=1)

    chains = 3000
    start = torch.zeros(chains, 1, dtype=torch.float64)
    h = torch.full((chains,), 0.05, dtype=torch.float64)
    z = mala(with_gradient(energy), start, 200, h, Stream())[:, 0]
    axis = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    density = (-energy(axis[:, None])).exp()
    density /= density.sum()
    for f in (lambda v: v, lambda v: v**2, lambda v: (v > 0).double()):
        mean = (density * f(axis)).sum()
        std = (density * (f(axis) - mean) ** 2).sum().sqrt()
        assert abs(f(z).mean() - mean) < 5 * std / math.sqrt(chains)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"steps must be at least 2 and search in \[0, 1\)"):
        Langevin(steps=1)
    with pytest.raises(ValueError, match="got 500 and 1"):
        ImageLangevin(search=1)
    with pytest.raises(ValueError, match="step_size must be > 0 and finite, got 0"):
        Langevin(step_size=0)
