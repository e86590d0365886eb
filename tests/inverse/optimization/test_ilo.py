from collections.abc import Callable, Sequence

import pytest
import torch
from contracts import dense, measure
from oracles import Dense, normals
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.optimization.csgm import CSGM
from genprior.inverse.optimization.ilo import ILO
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.base import Layered
from genprior.priors.gan import GAN

SHAPE = (1, 4, 4)


class Two(Layered):
    """x = 1/2 + M (W z): three numbers, then sixteen, then an image."""

    W, M = normals(1, 3, 16, seed=3)[0], 0.2 * normals(1, 16, 16, seed=4)[0]

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return image_shape[0], 3

    def layers(self, image_shape: torch.Size) -> Sequence[Callable[[Tensor], Tensor]]:
        return lambda z: z @ self.W, lambda h: 0.5 + (h @ self.M).reshape(image_shape)


def solve(radius: float, steps: int = 1000, sigma: float = 0.05) -> tuple[Tensor, Tensor, Tensor]:
    op = Inpainting(random_keep((2, 1, 4, 4), 0.4))
    y = measure(op, Dense().draw(2, SHAPE), torch.tensor(sigma))
    settings = {"steps": 100, "restarts": 1, "optimiser": "lbfgs"}
    first = CSGM(**settings)(y, op, Two(), sigma, Noise(0, [0, 1]))
    solver = ILO(**settings, stages=5, stage_steps=steps, stage_rate=0.02, radius=radius)
    x = solver(y, op, Two(), sigma, Noise(0, [0, 1]))
    h0 = (first - 0.5).flatten(1) @ torch.linalg.inv(Two.M)
    A = torch.stack([dense(op.select([i]), x[i : i + 1]) for i in range(2)])
    exact = []
    for i in range(2):
        J = A[i] @ Two.M.mT
        r, reach = y[i].flatten() - A[i] @ first[i].flatten(), radius * h0[i].norm()

        def step(mu: float, J: Tensor = J, r: Tensor = r) -> Tensor:
            return torch.linalg.solve(J.mT @ J + mu * torch.eye(16, dtype=J.dtype), J.mT @ r)

        low, high = 1e-12, 1e6
        for _ in range(200):
            mu = (low * high) ** 0.5
            low, high = (mu, high) if step(mu).norm() > reach else (low, mu)
        exact.append(first[i] + (step(high) @ Two.M).reshape(SHAPE))
    return x, first, torch.stack(exact)


@pytest.mark.parametrize("radius", [0.2, 0.5])
def test_a_linear_layer_is_a_least_squares_problem_in_a_ball(radius: float) -> None:
    x, first, exact = solve(radius)
    error = (x - exact).flatten(1).norm(dim=1) / (exact - first).flatten(1).norm(dim=1)
    assert error.max() < 0.02


def test_a_ball_of_no_size_is_csgm() -> None:
    x, first, _ = solve(0.0, steps=5)
    torch.testing.assert_close(x, first, rtol=0, atol=1e-12)


def test_deeper_layers_of_a_generator_fit_better() -> None:
    torch.manual_seed(0)
    prior = GAN(1, 3, (4, 6)).eval().requires_grad_(False)
    op = Inpainting(random_keep((3, 1, 8, 8), 0.5))
    y = op.A(torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    settings = {"steps": 20, "restarts": 2}
    fits = []
    for solver in (CSGM(**settings), *(ILO(**settings, stages=k) for k in (1, 2))):
        x = solver(y, op, prior, 0.1, Noise(0, [0, 1, 2]))
        fits.append((op.A(x) - y).flatten(1).square().sum(dim=1))
        alone = solver(y[2:], op.select([2]), prior, 0.1, Noise(0, [2]))
        torch.testing.assert_close(alone[0], x[2], rtol=0, atol=1e-3)
    assert (fits[2] < fits[1]).all() and (fits[1] < fits[0]).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match="stages and stage_steps must be at least 1, got 4, 0"):
        ILO(stages=0)
    with pytest.raises(ValueError, match="radius >= 0, got 0.02 and -1"):
        ILO(radius=-1)
