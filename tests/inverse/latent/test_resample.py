import pytest
import torch
from contracts import measure
from latents import LinearLatents
from oracles import Replay, normals
from papers import alpha_bars, ddim, measurement
from torch import Tensor

from genprior import restore
from genprior.inverse.latent.resample import ReSample
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep

SHAPE, LATENT = (1, 4, 6), (2, 2, 3)


def published(
    y: Tensor, op: Operator, solver: ReSample, noise_std: float, draws: list[Tensor]
) -> Tensor:
    """The authors' program for one image u = 2 x - 1, with the differences that are stated."""
    prior, noise, shape = LinearLatents(SHAPE, LATENT), iter(draws), torch.Size((1, *SHAPE))
    levels = alpha_bars(solver.steps)
    total = len(levels) - 1
    zero = torch.zeros(1, *LATENT, dtype=torch.float64)

    def estimate(z: Tensor, a: float) -> Tensor:
        return prior.denoise_latents(z / a**0.5, ((1 - a) / a) ** 0.5)

    def fit(z: Tensor) -> Tensor:
        z = z.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=solver.step_size)
        for _ in range(solver.latent_steps):
            u = 2 * prior.decode(z, shape) - 1
            residual = op.mask_unmeasured(op.A(u) - measurement(y, op, u))
            loss = residual.square().sum() / op.num_measurements(y)[0]
            if loss.item() <= 4 * max(noise_std, 5e-4) ** 2:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return z.detach()

    z = next(noise)
    for i in range(total):
        index, a, a_prev = total - i - 1, levels[i], levels[i + 1]
        z = z.detach().requires_grad_()
        z_0 = estimate(z, a)
        u = 2 * prior.decode(z_0, shape) - 1
        norm = (op.A(u) - measurement(y, op, u)).square().sum().sqrt()
        out = ddim(z, z_0, zero, a, a_prev, 0.0)
        z = (out - 0.5 * a * torch.autograd.grad(norm, z)[0]).detach()
        if 0 < index <= total - total // 3 and index % solver.interval == 0:
            moved = z
            for j in range(i + 1, min(i + 1 + solver.ahead, total)):
                z_0 = estimate(moved, levels[j])
                moved = ddim(moved, z_0, zero, levels[j], levels[j + 1], 0.0)
            if index >= total // 3:
                weight = torch.tensor([(noise_std / solver.pixel_std) ** 2]).double()
                z_0 = prior.encode(op.prox(prior.decode(z_0, shape), y, weight))
            else:
                z_0 = fit(z_0)
            sigma = solver.strength * (1 - a_prev) / (1 - a) * (1 - a / a_prev)
            mean = (sigma * a_prev**0.5 * z_0 + (1 - a_prev) * z) / (sigma + 1 - a_prev)
            z = mean + (1 / (1 / sigma + 1 / (1 - a_prev))) ** 0.5 * next(noise)
    return prior.decode(fit(z), shape).detach()


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
@pytest.mark.parametrize("op", [
    Denoising(), Inpainting(random_keep((1, 1, 4, 6), 0.4)),
    Blur(torch.tensor([[1.0, 2, 4]]), "circular"),
], ids=lambda op: type(op).__name__)
def test_agrees_with_the_authors_program_in_its_own_notation(
    op: Operator, noise_std: float
) -> None:
    solver = ReSample(steps=12, interval=2, ahead=2, latent_steps=4, strength=3.0)
    prior, draws = LinearLatents(SHAPE, LATENT), normals(9, 2, *LATENT)
    x = prior.decode(normals(1, 2, *LATENT, seed=3)[0], torch.Size((2, *SHAPE)))
    y = measure(op, x, torch.tensor(noise_std)).detach()
    ours = solver(y, op, prior, noise_std, Replay(draws))
    for i in range(2):
        theirs = published(y[i : i + 1], op, solver, noise_std, [z[i : i + 1] for z in draws])
        torch.testing.assert_close(ours[i : i + 1], theirs, rtol=0, atol=1e-7)


def test_the_result_fits_the_data_and_evaluations_are_counted() -> None:
    prior = LinearLatents(SHAPE, LATENT, torch.float32)
    op = Inpainting(random_keep((1, 1, 4, 6), 0.4))
    x = prior.decode(normals(1, 1, *LATENT, seed=3)[0].float(), torch.Size((1, *SHAPE)))
    y, solver = op.A(x.detach()), ReSample(steps=20, interval=3, latent_steps=300)
    result = restore(y, op, prior, solver, 0.05)
    assert result.nfe == solver.nfe
    assert result.misfit.item() < 1.05
