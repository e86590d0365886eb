"""Base class of nonlinear operators, y = A(x) + sigma n, differentiated by autograd.

The proximal map is the Levenberg-Marquardt method: A is linearised at u, and a linear problem
is solved by conjugate gradients,

    d = argmin_d ||J d - (y - A(u))||^2 + rho ||u + d - x||^2 + mu ||d||^2,   J = A'(u)
    u <- u + d   if this lowers the objective, and mu falls; else mu rises

from u = x and mu = 0. With mu = 0 this is the Gauss-Newton method; if A is affine, its first step
is the proximal map itself.

References:
    Numerical Optimization, Nocedal and Wright, 2006, chapter 10.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.linalg import cg, inner, per_image
from genprior.operators.base import Operator

# Factors by which mu rises after a step that fails, and falls after a step that succeeds.
RAISE, LOWER = 4.0, 0.25


class NonlinearOperator(Operator):
    """Operator whose A is not linear, and differentiable by autograd.

    A subclass writes `A` with functions of torch, and `image_shape`. Where there is a closed form
    of `prox`, or a better start than a grey image (`expansion_point`), it writes these too.

    Attributes:
        gauss_newton_steps: Linearisations in a proximal map.
        cg_steps: Largest number of iterations of conjugate gradients for each of them.
        tolerance: Relative residual at which these end.
    """

    is_linear = False
    gauss_newton_steps = 5
    cg_steps = 50
    tolerance = 1e-6

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """Returns A(x), the measurement of images x without noise, by functions of torch."""

    def value_and_vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        at = Linearised(self, x)
        return at.value, at.A_adjoint

    def linearised(self, x: Tensor, y: Tensor) -> tuple[Operator, Tensor]:
        J = Linearised(self, x)
        return J, y - J.value + J.A(x)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Returns a local minimum in u of ||A(u) - y||^2 + rho ||u - x||^2, searched from x.

        Arguments:
            x: Images, shape (B, C, H, W).
            y: Measurements.
            rho: Weight >= 0, a number or shape (B,).
        """
        with torch.no_grad():
            weight = per_image(rho, x)
            u, mu = x, torch.zeros_like(weight)

            def objective(u: Tensor, residual: Tensor) -> Tensor:
                return per_image(_power(residual), x) + weight * inner(u - x, u - x)

            for _ in range(self.gauss_newton_steps):
                J = Linearised(self, u)
                slope = J.A_adjoint(y - J.value) + weight * (x - u)

                def normal(d: Tensor, J: "Linearised" = J, shift: Tensor = weight + mu) -> Tensor:
                    return J.gram(d) + shift * d

                trial = u + cg(normal, slope, None, self.cg_steps, tolerance=self.tolerance)
                lower = objective(trial, y - self.A(trial)) <= objective(u, y - J.value)
                u = torch.where(lower, trial, u)
                steepest = inner(slope, J.gram(slope)) / inner(slope, slope).clamp(
                    min=torch.finfo(x.dtype).tiny
                )
                mu = torch.where(lower, LOWER * mu, torch.maximum(RAISE * mu, steepest))
        return u

    def pinv(self, y: Tensor) -> Tensor:
        """Returns images that fit the measurements, a local least-squares solution."""
        return self.prox(self.expansion_point(y), y, 0.0)

    def A_adjoint(self, y: Tensor) -> Tensor:
        raise SettingError(
            f"{type(self).__name__} is not linear, it has no adjoint: use value_and_vjp(x)"
        )

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        raise SettingError(f"{type(self).__name__} is not linear: A A^T is not defined")


class Linearised(Operator):
    """Linear operator J, the Jacobian of an operator at some images.

    J v is the derivative in w of <J^T w, v>, by differentiating twice: it takes any A that can be
    differentiated twice, whatever library computes it.

    Arguments:
        operator: The operator.
        x: Images, shape (B, C, H, W).

    Attributes:
        value: A(x).
    """

    def __init__(self, operator: NonlinearOperator, x: Tensor) -> None:
        self.operator = operator
        with torch.inference_mode(False), torch.enable_grad():
            self._x = x.detach().clone().requires_grad_()
            self._y = operator.A(self._x)
            if not self._y.requires_grad:
                raise TypeError(
                    f"{type(operator).__name__} cannot be differentiated by torch: write A with "
                    f"functions of torch, without detach or numpy"
                )
        self.value = self._y.detach()
        self._pulled: tuple[Tensor, Tensor] | None = None

    def A(self, v: Tensor) -> Tensor:
        """Returns J v."""
        if self._pulled is None:
            with torch.inference_mode(False), torch.enable_grad():
                w = torch.zeros_like(self.value).requires_grad_()
                (pulled,) = torch.autograd.grad(self._y, self._x, w, create_graph=True)
            self._pulled = pulled, w
        pulled, w = self._pulled
        return torch.autograd.grad(pulled, w, v, retain_graph=True)[0]

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Returns J^T y."""
        return torch.autograd.grad(self._y, self._x, y, retain_graph=True)[0]

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        return self.operator.image_shape(measurement_shape)

    def pinv(self, y: Tensor) -> Tensor:
        return self._least_squares(y, 0.0)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        return x + self._least_squares(y - self.A(x), rho)

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        c, sigma2 = per_image(c, v), per_image(sigma2, v)
        reached = torch.where(sigma2 > 0, v, self.A(self.pinv(v)))
        return cg(lambda w: c * self.A(self.A_adjoint(w)) + sigma2 * w, reached,
                  iterations=self.operator.cg_steps, tolerance=self.operator.tolerance)

    def select(self, images: Sequence[int]) -> Operator:
        chosen = cast(NonlinearOperator, self.operator.select(images))
        return Linearised(chosen, self._x[list(images)])

    def _least_squares(self, y: Tensor, rho: float | Tensor) -> Tensor:
        b = self.A_adjoint(y)
        weight = per_image(rho, b)
        return cg(lambda u: self.gram(u) + weight * u, b,
                  iterations=self.operator.cg_steps, tolerance=self.operator.tolerance)


def _power(residual: Tensor) -> Tensor:
    """Returns the squared norm per image, shape (B,)."""
    return residual.flatten(1).square().sum(dim=1)
