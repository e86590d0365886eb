import pytest
import torch
from contracts import check_solver, dense, measure
from golden import distance
from oracles import Crooked, Dense, Replay, Silence, normals
from papers import alpha_bars, measurement, predict
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.diffpir import DiffPIR
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser


def test_laws() -> None:
    check_solver(DiffPIR(steps=5))


def published(
    solver: DiffPIR,
    y: Tensor,
    op: Operator,
    prior: Denoiser,
    noise_std: float,
    draws: list[Tensor],
) -> Tensor:
    """Algorithm 1 of the paper for one image, its subproblem by dense algebra."""
    zeta = solver.stochasticity
    u, *rest = draws
    levels = alpha_bars(solver.steps)
    A, v = dense(op, u), measurement(y, op, u).flatten()
    for a, a_next, z in zip(levels[:-2], levels[1:-1], rest, strict=True):
        u_0 = predict(prior, u, a)
        # the noise in the measurement of u in [-1, 1] is twice that of x in [0, 1]
        rho = solver.coupling * (2 * noise_std) ** 2 / ((1 - a) / a)
        if rho:
            normal = A.mT @ A + rho * torch.eye(A.shape[1], dtype=A.dtype)
            u_0y = torch.linalg.solve(normal, A.mT @ v + rho * u_0.flatten())
        else:
            u_0y = u_0.flatten() + torch.linalg.pinv(A) @ (v - A @ u_0.flatten())
        u_0y = u_0y.reshape(u.shape)
        e = (u - a**0.5 * u_0y) / (1 - a) ** 0.5
        mixed = (1 - zeta) ** 0.5 * e + zeta**0.5 * z
        u = a_next**0.5 * u_0y + (1 - a_next) ** 0.5 * mixed
    return (predict(prior, u, levels[-2]) + 1) / 2


@pytest.mark.parametrize(
    "op",
    [
        Denoising(),
        Inpainting(random_keep((1, 1, 4, 6), 0.4)),
        Blur(torch.tensor([[1.0, 2, 4]]), "circular"),
        SuperResolution(2),
    ],
    ids=lambda op: type(op).__name__,
)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_agrees_with_the_paper_in_its_own_notation(op: Operator, noise_std: float) -> None:
    x, *draws = normals(5, 1, 3, 4, 6)
    y = measure(op, 0.5 + 0.2 * x, torch.tensor(noise_std))
    solver = DiffPIR(steps=4, coupling=1.7, stochasticity=0.3, spacing="ddpm")
    ours = solver(y, op, Crooked(), noise_std, Replay(draws))
    theirs = published(solver, y, op, Crooked(), noise_std, draws)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_known_pixels_are_met_exactly_at_every_step() -> None:
    class Spy(Dense):
        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            states.append(x)
            return super().denoise(x, sigma)

    states: list[Tensor] = []
    prior, keep = Spy(), random_keep((2, 1, 6, 5), 0.5)
    op = Inpainting(keep)
    y = op.A(prior.draw(2, (3, 6, 5)))
    # with zeta = 1 and all random numbers 0, a state is x_hat itself
    DiffPIR(steps=6, stochasticity=1.0)(y, op, prior, 0.0, Silence())
    assert len(states) == 6
    for state in states[1:]:
        assert torch.equal(op.A(state), y)


@pytest.mark.parametrize(
    ("stochasticity", "steps", "noise_std", "w2", "mean", "ratio"),
    [
        (1.0, 20, 0.05, 0.0662, 0.0274, 0.253),
        (0.1, 20, 0.2, 0.1186, 0.1076, 0.503),
        pytest.param(0.3, 100, 0.01, 0.0273, 0.0222, 0.694, marks=pytest.mark.slow),
    ],
)
def test_distance_to_the_posterior_is_as_computed_independently(
    stochasticity: float, steps: int, noise_std: float, w2: float, mean: float, ratio: float
) -> None:
    found = distance(DiffPIR(steps, stochasticity=stochasticity, spacing="ddpm"), noise_std)
    assert found == pytest.approx((w2, mean, ratio), rel=0.01)


def test_more_coupling_trusts_the_data_less() -> None:
    prior = Dense()
    x = prior.draw(1, (1, 6, 5))
    y = measure(Denoising(), x, torch.tensor(0.1))
    far = [
        (DiffPIR(10, coupling)(y, Denoising(), prior, 0.1, Noise(0, [0])) - y).norm().item()
        for coupling in (0.01, 1.0, 100.0)
    ]
    assert far == sorted(far)


def test_a_single_step_uses_the_data() -> None:
    prior, keep = Dense(), random_keep((1, 1, 6, 5), 0.5)
    op = Inpainting(keep)
    y = op.A(prior.draw(1, (1, 6, 5)))
    x = DiffPIR(steps=1)(y, op, prior, 0.0, Noise(0, [0]))
    assert torch.equal(op.A(x), y)
