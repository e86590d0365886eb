import pytest
import torch
from contracts import check_solver, measure
from oracles import Crooked, Replay, normals
from torch import Tensor

from genprior.inverse.plug_and_play.pnp_flow import PnPFlow
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser


def test_laws() -> None:
    check_solver(PnPFlow(steps=2, averages=2), seeded=True)


def published(
    y: Tensor, op: Operator, prior: Denoiser, solver: PnPFlow, draws: list[Tensor]
) -> Tensor:
    """Algorithm 3 of the paper, for images u = 2 x - 1 and data at time 1."""
    noise = iter(draws)
    y_u = 2 * y - op.A(torch.ones_like(draws[0]))
    u = 2 * op.A_adjoint(y) - 1
    start = 1 / (1 + 2 * solver.sigma_max)  # in place of time 0

    def velocity(u_t: Tensor, t: float) -> Tensor:
        x = (u_t / t + 1) / 2
        return (2 * prior.denoise(x, (1 - t) / (2 * t)) - 1 - u_t) / (1 - t)

    for k in range(solver.steps):
        t = k / solver.steps
        z = u - solver.step_size * (1 - t) ** solver.alpha * op.A_adjoint(op.A(u) - y_u)
        t = t or start
        states = [t * z + (1 - t) * next(noise) for _ in range(solver.averages)]
        u = sum(state + (1 - t) * velocity(state, t) for state in states) / solver.averages
    return (u + 1) / 2


@pytest.mark.parametrize("op", [
    Denoising(), Inpainting(random_keep((1, 1, 4, 6), 0.4)),
    Blur(torch.tensor([[1.0, 2, 4]]), "circular"), SuperResolution(2),
], ids=lambda op: type(op).__name__)
def test_agrees_with_the_paper_in_its_own_notation(op: Operator) -> None:
    solver = PnPFlow(steps=4, alpha=0.8, averages=2, step_size=0.7)
    x, *draws = normals(1 + solver.nfe, 2, 3, 4, 6)
    y = measure(op, 0.5 + 0.2 * x, torch.tensor([0.0, 0.1]))
    ours = solver(y, op, Crooked(), 0.1, Replay(draws))
    torch.testing.assert_close(ours, published(y, op, Crooked(), solver, draws), rtol=0, atol=1e-9)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="alpha must be >= 0"):
        PnPFlow(alpha=-1.0)
    assert PnPFlow().nfe == 500
