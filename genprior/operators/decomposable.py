"""Closed-form solves of a physics that knows its singular vectors, A = U diag(s) V^T."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import deepinv
import torch
from torch import Tensor

from genprior.core.linalg import Singular, damped_inverse, per_image

# Relative errors: rounding.
CLOSED = 1e-4

Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Decomposition:
    """The solves.

    Arguments:
        singular: s, V^T, V and U^T; s has as many axes as the coordinates.
        measure: U.
    """

    singular: Singular
    measure: Linear

    def pinv(self, y: Tensor) -> Tensor:
        """See `Operator.pinv`."""
        along = self.singular.data(y)
        return self.singular.back(self._gain(along, 1.0, 0.0) * self.singular.values * along)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """See `Operator.prox`."""
        s, svd = self.singular.values, self.singular
        short = svd.data(y) - s * svd.image(x)
        return x + svd.back(self._gain(short, 1.0, rho) * s * short)

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        """See `Operator.solve_gram`."""
        along = self.singular.data(v)
        noise = per_image(sigma2, v)
        aside = torch.where(noise > 0, 1 / torch.where(noise > 0, noise, 1), 0)
        solved = self.measure(self._gain(along, c, sigma2) * along)
        return solved + aside * (v - self.measure(along))

    def _gain(self, like: Tensor, c: float | Tensor, shift: float | Tensor) -> Tensor:
        """1 / (c s^2 + shift), coordinate by coordinate."""
        c, shift = per_image(c, like.real), per_image(shift, like.real)
        return damped_inverse(c * self.singular.values**2, shift, range(1, like.ndim))


def decomposition(
    physics: deepinv.physics.DecomposablePhysics,
    apply: Callable[[Linear, Tensor], Tensor],
    mask: Tensor,
    dtype: torch.dtype,
) -> Decomposition:
    """The decomposition that a physics of deepinv says to have.

    Arguments:
        physics: The physics.
        apply: Applies one of its maps to a tensor.
        mask: Its singular values as deepinv keeps them, which may be negative or complex.
        dtype: Of the values.
    """
    values = mask.abs().to(dtype)
    turn = torch.where(values > 0, mask / torch.where(values > 0, values, 1), 1)
    U, U_adjoint, V, V_adjoint = (
        partial(apply, getattr(physics, name)) for name in ("U", "U_adjoint", "V", "V_adjoint")
    )
    singular = Singular(values, V_adjoint, V, lambda y: turn.conj() * U_adjoint(y))
    return Decomposition(singular, lambda c: U(turn * c))


def holds(known: Decomposition, A: Linear, A_adjoint: Linear, x: Tensor, y: Tensor) -> bool:
    """Whether it is that of A: its solves solve, for a random image x and a random y."""
    weight = A(x).square().sum() / x.square().sum()
    nearest, solved = known.prox(x, y, weight), known.solve_gram(y, 1.0, weight)
    short = A_adjoint(y - A(nearest)) - weight * (nearest - x)
    left = y - A(A_adjoint(solved)) - weight * solved
    errors = short.norm() / A_adjoint(y).norm(), left.norm() / y.norm()
    return all(bool(error <= CLOSED) for error in errors)
