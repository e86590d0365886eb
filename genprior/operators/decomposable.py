"""Closed-form solves for a deepinv physics with a known SVD, A = U diag(s) V^T."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genprior.core.linalg import Singular, damped_inverse, per_image

# Largest relative error of a solve that is attributed to rounding.
ROUNDING = 1e-4

Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Decomposition:
    """Singular value decomposition of an operator, with closed-form solves.

    Arguments:
        singular: s, V^T, V and U^T; s has as many axes as the coordinates.
        measure: Applies U.
    """

    singular: Singular
    measure: Linear

    def pinv(self, y: Tensor) -> Tensor:
        """See `Operator.pinv`."""
        coords = self.singular.data(y)
        return self.singular.back(self._gain(coords, 1.0, 0.0) * self.singular.values * coords)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """See `Operator.prox`."""
        s, svd = self.singular.values, self.singular
        residual = svd.data(y) - s * svd.image(x)
        return x + svd.back(self._gain(residual, 1.0, rho) * s * residual)

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        """See `Operator.solve_gram`."""
        coords = self.singular.data(v)
        noise = per_image(sigma2, v)
        inverse_noise = torch.where(noise > 0, 1 / torch.where(noise > 0, noise, 1), 0)
        solved = self.measure(self._gain(coords, c, sigma2) * coords)
        return solved + inverse_noise * (v - self.measure(coords))

    def _gain(self, like: Tensor, c: float | Tensor, shift: float | Tensor) -> Tensor:
        """Returns 1 / (c s^2 + shift) for every coordinate."""
        c, shift = per_image(c, like.real), per_image(shift, like.real)
        return damped_inverse(c * self.singular.values**2, shift, range(1, like.ndim))


def decomposition(
    physics: Any,
    apply: Callable[[Linear, Tensor], Tensor],
    mask: Tensor,
    dtype: torch.dtype,
) -> Decomposition:
    """Returns the decomposition that a physics of deepinv declares.

    Arguments:
        physics: A `deepinv.physics.DecomposablePhysics`.
        apply: Applies one of its maps to a tensor.
        mask: Its singular values as deepinv stores them; they may be negative or complex.
        dtype: Real dtype of the singular values.
    """
    values = mask.abs().to(dtype)
    phase = torch.where(values > 0, mask / torch.where(values > 0, values, 1), 1)
    U, U_adjoint, V, V_adjoint = (
        partial(apply, getattr(physics, name)) for name in ("U", "U_adjoint", "V", "V_adjoint")
    )
    singular = Singular(values, V_adjoint, V, lambda y: phase.conj() * U_adjoint(y))
    return Decomposition(singular, lambda c: U(phase * c))


def holds(known: Decomposition, A: Linear, A_adjoint: Linear, x: Tensor, y: Tensor) -> bool:
    """Returns whether the decomposition is that of A, by its solves for random x and y."""
    weight = A(x).square().sum() / x.square().sum()
    nearest, solved = known.prox(x, y, weight), known.solve_gram(y, 1.0, weight)
    residual = A_adjoint(y - A(nearest)) - weight * (nearest - x)
    gram_residual = y - A(A_adjoint(solved)) - weight * solved
    errors = residual.norm() / A_adjoint(y).norm(), gram_residual.norm() / y.norm()
    return all(bool(error <= ROUNDING) for error in errors)
