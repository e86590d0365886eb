import numpy as np
import pytest
import torch
from oracles import normals
from scipy.optimize import rosen, rosen_der
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genprior.inverse.optimization.lbfgs import lbfgs


class Quadratic:
    """z^T M z / 2 - b^T z, another one for each image; keeps the losses."""

    def __init__(self, condition: float) -> None:
        batch, n = 3, 6
        basis = torch.linalg.qr(normals(1, batch, n, n)[0]).Q
        values = torch.logspace(0, np.log10(condition), n, dtype=torch.float64)
        self.M = basis @ torch.diag(values) @ basis.mT
        self.b = normals(1, batch, n, seed=1)[0]
        self.losses: list[Tensor] = []

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        Mz = (self.M @ z[..., None])[..., 0]
        self.losses.append((z * (Mz / 2 - self.b)).sum(dim=1))
        return self.losses[-1], Mz - self.b


def rosenbrock(z: Tensor) -> tuple[Tensor, Tensor]:
    points = z.numpy()
    values = np.stack([rosen(p) for p in points])
    return torch.from_numpy(values), torch.from_numpy(np.stack([rosen_der(p) for p in points]))


@pytest.mark.parametrize("condition", [1.0, 1e4])
def test_the_minimum_of_a_quadratic(condition: float) -> None:
    objective = Quadratic(condition)
    start = normals(1, 3, 6, seed=2)[0]
    z = lbfgs(objective, start, steps=100)
    assert len(objective.losses) == 100
    expected = torch.linalg.solve(objective.M, objective.b)
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-6)
    assert (objective(z)[0] <= torch.stack(objective.losses).amin(dim=0) + 1e-13).all()


def test_curved_valleys_are_followed_as_if_alone() -> None:
    start = 2 * normals(1, 4, 3, seed=3)[0]
    z = lbfgs(rosenbrock, start, steps=200)
    torch.testing.assert_close(z, torch.ones_like(z), rtol=0, atol=1e-6)
    short = lbfgs(rosenbrock, start, steps=30)
    for i in range(4):
        alone = lbfgs(rosenbrock, start[i : i + 1], steps=30)
        torch.testing.assert_close(alone[0], short[i], rtol=0, atol=1e-10)


def test_a_trial_that_is_not_finite_is_shortened() -> None:
    def objective(z: Tensor) -> tuple[Tensor, Tensor]:
        # -log z + z, not finite for z <= 0: its minimum is 1
        return (z - z.log()).sum(dim=1), 1 - 1 / z

    start = torch.tensor([[30.0], [1e-3], [1.5]], dtype=torch.float64)
    z = lbfgs(objective, start, steps=60)
    torch.testing.assert_close(z, torch.ones_like(z), rtol=0, atol=1e-7)


def test_nothing_is_read_back_to_the_host() -> None:
    class Monitor(TorchDispatchMode):
        reads = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.reads += func is torch.ops.aten._local_scalar_dense.default
            return func(*args, **kwargs or {})

    objective, start = Quadratic(10.0), normals(1, 3, 6, seed=2)[0]
    with Monitor() as watch:
        lbfgs(objective, start, steps=5)
        assert watch.reads == 0
        start.sum().item()
        assert watch.reads == 1
