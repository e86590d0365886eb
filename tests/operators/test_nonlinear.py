import pytest
import torch
from contracts import check_operator, dense
from nonlinear import Affine, check_jacobian
from torch import Tensor, nn

from genprior.core.errors import SettingError
from genprior.inverse.tikhonov import smooth_start
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.nonlinear import Linearised, NonlinearOperator
from genprior.operators.superres import SuperResolution

KERNEL = torch.tensor([[1.0, 2, 1], [0, 5, 0]])


class Squares(NonlinearOperator, nn.Module):
    """Squares of sums of neighbours: every measurement depends on two pixels."""

    def A(self, x: Tensor) -> Tensor:
        return (x[..., 1:] + x[..., :-1]).square()

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        return torch.Size((*measurement_shape[:-1], measurement_shape[-1] + 1))


class Detached(Squares):
    def A(self, x: Tensor) -> Tensor:
        return super().A(x).detach()


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_derivatives_agree_with_finite_differences() -> None:
    check_jacobian(Squares(), images(2, 3, 4, 5))


def test_the_linearised_operator_is_a_linear_operator() -> None:
    x = images(2, 1, 3, 5)
    op = Squares()
    op.cg_steps, op.tolerance = 200, 1e-13
    J = Linearised(op, x)
    check_operator(J, x, rtol=1e-7)
    s = (x[..., 1:] + x[..., :-1])[0].flatten()
    row = dense(J.select([0]), x[:1])[0]  # d (x0 + x1)^2 = 2 (x0 + x1) (dx0 + dx1)
    assert torch.allclose(row[:2], 2 * s[0].expand(2)) and (row[2:] == 0).all()


@pytest.mark.parametrize("linear", [
    Blur(KERNEL, "circular"), SuperResolution(2, image_size=(6, 8)),
    Inpainting(random_keep((1, 1, 6, 8), 0.4)),
], ids=lambda op: type(op).__name__)
@pytest.mark.parametrize("rho", [0.0, 0.3, torch.tensor([0.0, 0.7]).double()])
def test_for_an_affine_operator_it_is_the_exact_proximal_map(
    linear: NonlinearOperator, rho: float | Tensor
) -> None:
    x, op = images(2, 3, 6, 8), Affine(linear, 0.25)
    y = linear.A(images(2, 3, 6, 8, seed=1)) + 0.1
    found, exact = op.prox(x, y + 0.25, rho), linear.prox(x, y, rho)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(
        smooth_start(y + 0.25, op), smooth_start(y, linear), rtol=0, atol=1e-10
    )


def test_the_proximal_map_is_a_stationary_point_and_below_its_start() -> None:
    op, x = Squares(), images(3, 2, 4, 6)
    y, rho = op.A(images(3, 2, 4, 6, seed=1)), torch.tensor([0.05, 0.3, 2.0]).double()
    weight = rho.reshape(-1, 1, 1, 1)
    op.gauss_newton_steps = 30

    def objective(u: Tensor) -> Tensor:
        return ((op.A(u) - y) ** 2).sum((1, 2, 3)) + (weight * (u - x) ** 2).sum((1, 2, 3))

    u = op.prox(x, y, rho).requires_grad_()
    gradient = torch.autograd.grad(objective(u).sum(), u)[0]
    assert gradient.norm() < 1e-6 * y.norm()
    assert (objective(u) < objective(x)).all()
    for i in range(3):
        alone = op.prox(x[i : i + 1], y[i : i + 1], rho[i : i + 1])
        torch.testing.assert_close(alone[0], u[i].detach(), rtol=0, atol=1e-9)


def test_a_step_that_raises_the_objective_is_not_taken() -> None:
    op, x = Squares(), torch.full((1, 1, 1, 6), 1e-3, dtype=torch.float64)  # J is nearly 0
    y = torch.full((1, 1, 1, 5), 4.0, dtype=torch.float64)
    distances = []
    for steps in (1, 2, 4, 8, 16):
        op.gauss_newton_steps = steps
        distances.append((op.A(op.prox(x, y, 0.0)) - y).norm().item())
    assert all(b <= a for a, b in zip(distances, distances[1:], strict=False))
    assert distances[-1] < 1e-3 * (op.A(x) - y).norm()


def test_a_least_squares_image_fits_the_measurement() -> None:
    op = Squares()
    y = op.A(images(2, 1, 4, 6))
    assert (op.A(op.pinv(y)) - y).abs().max() < 1e-4


def test_inference_mode_and_single_precision() -> None:
    op, x = Squares(), images(1, 1, 4, 6).float()
    expected = op.prox(x, op.A(x) + 0.1, 0.2)
    with torch.inference_mode():
        found = op.prox(x + 0, op.A(x) + 0.1, 0.2)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert not expected.requires_grad


def test_what_only_linear_operators_have_is_refused() -> None:
    y = images(1, 1, 4, 5)
    with pytest.raises(SettingError, match="Squares is not linear, it has no adjoint: use value_"):
        Squares().A_adjoint(y)
    with pytest.raises(SettingError, match="Squares is not linear: A A.T is not defined"):
        Squares().solve_gram(y, 1.0, 1.0)
    with pytest.raises(TypeError, match="Detached cannot be differentiated by torch: write A"):
        Detached().value_and_vjp(images(1, 1, 4, 6))
