import math

import pytest
import torch
from contracts import measure
from latents import LinearLatents
from oracles import Replay, normals
from torch import Tensor

from genprior import restore
from genprior.core.random_streams import Noise
from genprior.inverse.latent.daps import LatentDAPS
from genprior.operators.base import Operator
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep

SHAPE, LATENT = (1, 4, 6), (2, 2, 3)


def poly7(count: int, first: float, last: float) -> list[float]:
    a, b = first ** (1 / 7), last ** (1 / 7)
    return [(a + (b - a) * k / max(count - 1, 1)) ** 7 for k in range(count)]


def published(y: Tensor, op: Operator, solver: LatentDAPS, draws: list[Tensor]) -> Tensor:
    """The authors' program for one image u = 2 x - 1, with autograd."""
    prior, noise, shape = LinearLatents(SHAPE, LATENT), iter(draws), torch.Size((1, *SHAPE))
    levels = poly7(solver.steps, solver.s_max, solver.s_min)
    z = (1 + levels[0] ** 2) ** 0.5 * next(noise)
    for k, s in enumerate(levels):
        z_hat = z
        times = [*poly7(solver.ode_steps, s, solver.ode_min), 0.0]
        for t, t_next in zip(times, times[1:], strict=False):
            score = (prior.denoise_latents(z_hat, t) - z_hat) / t**2
            z_hat = (z_hat + (t - t_next) * t * score).detach()
        rate = solver.rate * (1 + k / solver.steps * (solver.rate_share - 1))
        z_0, v = z_hat, next(noise) if solver.momentum else 0
        for _ in range(solver.langevin_steps):
            z_0 = z_0.detach().requires_grad_()
            u = 2 * prior.decode(z_0, shape) - 1
            y_u = 2 * y - op.A(torch.ones_like(u))
            loss = op.mask_unmeasured(op.A(u) - y_u).square().sum()
            score = -torch.autograd.grad(loss, z_0)[0] / (2 * solver.tau) ** 2
            score = score + (z_hat - z_0) / s**2
            v = solver.momentum * v + rate**0.5 * score
            v = v + (2 * (1 - solver.momentum)) ** 0.5 * next(noise)
            z_0 = (z_0 + rate**0.5 * v).detach()
        z = z_0 + levels[k + 1] * next(noise) if k + 1 < len(levels) else z_0
    return prior.decode(z, shape).detach()


@pytest.mark.parametrize("momentum", [0.0, 0.74])
@pytest.mark.parametrize("op", [Denoising(), Inpainting(random_keep((1, 1, 4, 6), 0.4))],
                         ids=lambda op: type(op).__name__)
def test_agrees_with_the_authors_program_in_its_own_notation(
    op: Operator, momentum: float
) -> None:
    solver = LatentDAPS(steps=3, ode_steps=2, langevin_steps=3, momentum=momentum, tau=0.05,
                        rate=1e-3)
    prior, draws = LinearLatents(SHAPE, LATENT), normals(30, 2, *LATENT)
    x = prior.decode(normals(1, 2, *LATENT, seed=3)[0], torch.Size((2, *SHAPE)))
    y = measure(op, x, torch.tensor([0.0, 0.1])).detach()
    ours = solver(y, op, prior, 0.1, Replay(draws))
    for i in range(2):
        theirs = published(y[i : i + 1], op, solver, [z[i : i + 1] for z in draws])
        torch.testing.assert_close(ours[i : i + 1], theirs, rtol=0, atol=1e-9)


def test_one_level_with_the_noise_of_the_data_is_bayes_rule() -> None:
    # z_hat is the end of one step of the ODE, and the damped steps converge to the law
    # N(z_hat, s^2) exp(-|y - A D(z)|^2 / (2 noise^2)), whose mean and covariance are known
    s, noise, count = 0.3, 0.2, 1000
    prior, op = LinearLatents(SHAPE, (2, 1, 1)), Denoising()
    y = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(4)).double()
    solver = LatentDAPS(steps=1, ode_steps=1, s_max=s, s_min=s, tau=None, rate=2e-3,
                        langevin_steps=300, momentum=0.5)
    start = torch.full((count, 2, 1, 1), 0.2).double()

    class Still(LinearLatents):
        def denoise_latents(self, z: Tensor, s: float | Tensor) -> Tensor:
            return start[: len(z)]

    still = Still(SHAPE, (2, 1, 1))
    x = solver(y.expand(count, -1, -1, -1), op, still, noise, Noise(0, list(range(count))))
    W = prior.W.detach()
    precision = torch.eye(2).double() / s**2 + W.T @ W / noise**2
    cov = torch.linalg.inv(precision)
    mean = cov @ (0.2 / s**2 + W.T @ (y.flatten() - prior.b.detach()) / noise**2)
    z = prior.encode(x).flatten(1).detach()
    error = (cov.diag() / count).sqrt()
    assert ((z.mean(dim=0) - mean).abs() < 5 * error + 0.01 * cov.diag().sqrt()).all()
    torch.testing.assert_close(z.T.cov(), cov, rtol=0.15,
                               atol=5 * cov.diag().max().item() * math.sqrt(2 / count))


def test_evaluations_are_counted_and_settings_checked() -> None:
    prior = LinearLatents(SHAPE, LATENT, torch.float32)
    y = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    solver = LatentDAPS(3, langevin_steps=2)
    assert restore(y, Denoising(), prior, solver, 0.1, samples=2).nfe == solver.nfe == 13
    assert restore(y, Denoising(), prior, noise_std=0.1, steps=2).solver == "latent-daps"
    with pytest.raises(ValueError, match="momentum must be below 1"):
        LatentDAPS(momentum=1.0)
