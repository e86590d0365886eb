import pytest
import torch
from contracts import measure
from latents import LinearLatents
from oracles import Replay, normals
from papers import alpha_bars, ddim, measurement
from torch import Tensor

from genprior import restore
from genprior.inverse.latent.psld import PSLD
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution

SHAPE, LATENT = (1, 4, 6), (2, 2, 3)
OPERATORS = [
    Denoising(), Inpainting(random_keep((1, 1, 4, 6), 0.4)),
    Blur(torch.tensor([[1.0, 2, 4]]), "circular"), SuperResolution(2),
]


def published(y: Tensor, op: Operator, solver: PSLD, draws: list[Tensor]) -> Tensor:
    """The steps of the authors' program for one image u = 2 x - 1, with autograd."""
    prior, (z, *rest) = LinearLatents(SHAPE, LATENT), draws
    shape = torch.Size((1, *SHAPE))
    levels = alpha_bars(solver.steps)
    for k, (a, a_next) in enumerate(zip(levels, levels[1:], strict=False)):
        z = z.detach().requires_grad_()
        z_0 = prior.denoise_latents(z / a**0.5, ((1 - a) / a) ** 0.5)
        u = 2 * prior.decode(z_0, shape) - 1
        y_u = measurement(y, op, u)
        error = solver.omega * (op.A(u) - y_u).square().sum().sqrt()
        glued = u - op.A_adjoint(op.A(u)) + op.A_adjoint(y_u)
        error = error + solver.gamma * (prior.encode((glued + 1) / 2) - z_0).square().sum().sqrt()
        gradient = torch.autograd.grad(error, z)[0]
        noise = rest[k] if k < len(rest) else torch.zeros_like(z)
        z = (ddim(z, z_0, noise, a, a_next, solver.eta) - gradient).detach()
    return prior.decode(z, shape).detach()


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: type(op).__name__)
def test_agrees_with_the_authors_program_in_its_own_notation(op: Operator, eta: float) -> None:
    solver, prior = PSLD(steps=4, eta=eta, omega=0.7, gamma=0.3), LinearLatents(SHAPE, LATENT)
    draws = normals(4 if eta else 1, 2, *LATENT)
    y = measure(op, prior.decode(normals(1, 2, *LATENT, seed=3)[0], torch.Size((2, *SHAPE))),
                torch.tensor([0.0, 0.1])).detach()
    ours = solver(y, op, prior, 0.1, Replay(draws))
    for i in range(2):
        theirs = published(y[i : i + 1], op, solver, [z[i : i + 1] for z in draws])
        torch.testing.assert_close(ours[i : i + 1], theirs, rtol=0, atol=1e-9)


def test_the_evaluations_are_counted_and_settings_checked() -> None:
    prior = LinearLatents(SHAPE, LATENT, torch.float32)
    y = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    done = []
    result = restore(y, Denoising(), prior, PSLD(5), 0.1,
                     progress=lambda done_, total: done.append((done_, total)))
    assert result.nfe == PSLD(5).nfe == 16 and done[-1] == (16, 16)
    with pytest.raises(ValueError, match="at 'ddpm' has|has 1000 levels"):
        PSLD(2000)
