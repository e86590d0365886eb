import pytest
import torch
from contracts import check_solver, measure
from oracles import Crooked, Dense, Replay, normals
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.flow_dps import FlowDPS
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser


def test_laws() -> None:
    check_solver(FlowDPS(steps=3))


def published(
    y: Tensor, op: Operator, prior: Denoiser, solver: FlowDPS, draws: list[Tensor]
) -> Tensor:
    """The steps of the authors' program, for images u = 2 x - 1 and data at time 0."""
    first, *noise = draws
    y_u = 2 * y - op.A(torch.ones_like(first))
    times = torch.linspace(1, 0, solver.steps + 1, dtype=torch.float64)[:-1]
    times = (solver.shift * times / (1 + (solver.shift - 1) * times)).tolist()
    times[0] = 2 * solver.sigma_max / (1 + 2 * solver.sigma_max)
    z = (1 - times[0]) * 2 * ((0.25 + solver.sigma_max**2) ** 0.5 * first)
    for k, (w, w_next) in enumerate(zip(times, [*times[1:], 0.0], strict=True)):
        u_hat = 2 * prior.denoise((z / (1 - w) + 1) / 2, w / (1 - w) / 2) - 1
        v = (z - u_hat) / w
        z0, z1 = z - w * v, z + (1 - w) * v
        moved = z0
        for _ in range(solver.gradient_steps):
            moved = moved - solver.step_size * op.A_adjoint(op.A(moved) - y_u)
        z0 = (1 - w) * z0 + w * moved
        new = noise[k] if k < len(noise) else torch.zeros_like(z)
        z = (1 - w_next) * z0 + w_next * (w_next**0.5 * z1 + (1 - w_next) ** 0.5 * new)
    return (z + 1) / 2


@pytest.mark.parametrize("op", [
    Denoising(), Inpainting(random_keep((1, 1, 4, 6), 0.4)),
    Blur(torch.tensor([[1.0, 2, 4]]), "circular"), SuperResolution(2),
], ids=lambda op: type(op).__name__)
def test_agrees_with_the_authors_program_in_its_own_notation(op: Operator) -> None:
    solver = FlowDPS(steps=4, gradient_steps=2, step_size=0.7)
    x, *draws = normals(1 + solver.nfe, 2, 3, 4, 6)
    y = measure(op, 0.5 + 0.2 * x, torch.tensor([0.0, 0.1]))
    ours = solver(y, op, Crooked(), 0.1, Replay(draws))
    torch.testing.assert_close(ours, published(y, op, Crooked(), solver, draws), rtol=0, atol=1e-9)


def test_bias_and_spread_on_a_gaussian_are_those_of_its_recursion() -> None:
    # pixels N(1/2, v) without correlation, y = x + noise: mean and variance of a pixel, exactly
    std, noise, value, count = 0.25, 0.1, 0.9, 400
    solver, y = FlowDPS(steps=28), torch.full((count, 1, 6, 6), value, dtype=torch.float64)
    samples = solver(y, Denoising(), Dense(std=std, length=0), noise, Noise(0, list(range(count))))
    m, v = 0.5, 0.25 + solver.sigmas[0] ** 2
    for s, s_next in zip(solver.sigmas, [*solver.sigmas[1:], 0.0], strict=True):
        gain = std**2 / (std**2 + s**2)
        w, kept = 2 * s / (1 + 2 * s), 2 * s_next / (1 + 2 * s_next)
        # x_hat = 1/2 + gain (x - 1/2); one gradient step of size 1 is y itself
        of_x = (1 - w) * gain + s_next * kept**0.5 * (1 - gain) / s
        m = 0.5 + of_x * (m - 0.5) + w * (value - 0.5)
        v = of_x**2 * v + s_next**2 * (1 - kept)
    numbers = samples.flatten()
    error = (v / len(numbers)) ** 0.5
    assert numbers.mean().item() == pytest.approx(m, abs=5 * error)
    assert numbers.var().item() == pytest.approx(v, rel=5 * (2 / len(numbers)) ** 0.5)
    # the posterior is another law: FlowDPS does not use the noise level
    shrunk = std**2 / (std**2 + noise**2)
    print(f"mean {m:.4f} for {0.5 + shrunk * (value - 0.5):.4f}, "
          f"std {v**0.5:.4f} for {shrunk**0.5 * noise:.4f}")
