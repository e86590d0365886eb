"""Closed-form solves of a physics that knows its singular vectors, A = U diag(s) V^T."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.linalg import Singular, damped_inverse, per_image


@dataclass(frozen=True)
class Decomposition:
    """The solves.

    Arguments:
        singular: s, V^T, V and U^T; s has as many axes as the coordinates.
        measure: U.
    """

    singular: Singular
    measure: Callable[[Tensor], Tensor]

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
