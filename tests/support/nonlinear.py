"""Operators that are not linear, for tests."""

import torch
from torch import Tensor, nn

from genprior.operators.base import Operator
from genprior.operators.nonlinear import NonlinearOperator


class Affine(NonlinearOperator, nn.Module):
    """B x + shift: what a solver finds for it must be what it finds for B, if y is shifted too.

    Arguments:
        linear: B.
        shift: Number that is added to every measured value.
    """

    cg_steps = 400
    tolerance = 1e-13

    def __init__(self, linear: Operator, shift: float) -> None:
        super().__init__()
        self.linear, self.shift = linear, shift

    def A(self, x: Tensor) -> Tensor:
        return self.mask_unmeasured(self.linear.A(x) + self.shift)

    def mask_unmeasured(self, v: Tensor) -> Tensor:
        return self.linear.mask_unmeasured(v)

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        return self.linear.image_shape(measurement_shape)

    def select(self, images: list[int]) -> "Affine":
        return Affine(self.linear.select(images), self.shift)


def check_jacobian(op: Operator, x: Tensor, rtol: float = 1e-7, step: float = 1e-6) -> None:
    """Compares the products with the Jacobian and its transpose with finite differences.

    Arguments:
        op: The operator.
        x: Images, float64, where A is smooth.
        rtol: Tolerance relative to the norm of the product.
        step: Length of the differences per pixel.
    """
    generator = torch.Generator().manual_seed(3)
    u = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    y, vjp = op.value_and_vjp(x)
    v = torch.randn(y.shape, generator=generator, dtype=x.dtype)
    assert torch.equal(y, op.A(x))
    along = (op.A(x + step * u) - op.A(x - step * u)) / (2 * step)
    J, b = op.linearised(x, y)
    assert (J.A(u) - along).norm() <= rtol * along.norm(), "J u"
    difference = (vjp(v) * u).sum() - (along * v).sum()
    assert difference.abs() <= rtol * along.norm() * v.norm(), "J^T v"
    assert torch.allclose(vjp(v), J.A_adjoint(v), rtol=1e-12, atol=0)
    assert torch.allclose(J.A(x), b, rtol=1e-9, atol=1e-12), "J x - b is not A x - y"
