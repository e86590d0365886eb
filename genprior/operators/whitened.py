"""Whitened operator: a measurement with noise of any covariance, as one with white noise.

    y = A x + n,  n ~ N(0, Sigma)    becomes    W y = W A x + sigma n',  n' ~ N(0, I)

with W = sigma Sigma^{-1/2} and sigma the root mean square of n, so that W = I if n is white. A
solver that is exact for white noise is then exact for n, and one that approximates the posterior
does so here. The same holds for A that is not linear, y = A(x) + n.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from genprior.core.errors import SettingError
from genprior.core.linalg import cg, inner, per_image
from genprior.operators.base import Operator
from genprior.operators.noise_models import GaussianNoise
from genprior.operators.nonlinear import NonlinearOperator


class Whitened(Operator, nn.Module):
    """Operator W A, for an operator A with noise of a given covariance.

    For denoising, the solves are exact; for other operators they are conjugate gradients.

    Arguments:
        operator: A; its measurements are images.
        noise: Law of the noise of its measurements.
        plain: Whether W is replaced by I: for solvers that whiten the noise themselves.
        iterations: Maximum number of iterations of a solve.
        tolerance: A solve ends when the residual is this fraction of the right-hand side.
    """

    measures_images = False

    def __init__(
        self,
        operator: Operator,
        noise: GaussianNoise,
        plain: bool = False,
        iterations: int = 200,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__()
        self.operator, self.noise, self.plain = operator, noise, plain
        self.iterations, self.tolerance = iterations, tolerance
        self.takes_float64 = operator.takes_float64
        self.is_noisy_image = operator.is_identity
        self.has_stationary_noise = noise.is_white or not noise.is_independent

    def whiten(self, y: Tensor) -> Tensor:
        """Returns W y, the measurement of this operator, for a measurement y of A."""
        if self.plain:
            return y
        return per_image(self.noise.level(y), y) * self.noise.whiten(y)

    def colour(self, y: Tensor) -> Tensor:
        """Returns W^{-1} y, the measurement of A."""
        if self.plain:
            return y
        return self.noise.colour(y) / per_image(self.noise.level(y), y)

    def colour_noise(self, white: Tensor) -> Tensor:
        return self.noise.colour(white)

    def noisy_image(self, y: Tensor) -> Tensor:
        return self.colour(y)

    def A(self, x: Tensor) -> Tensor:
        return self.whiten(self.operator.A(x))

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.operator.A_adjoint(self.whiten(y))

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        return self.operator.image_shape(measurement_shape)

    def check_shape(self, measurement_shape: torch.Size) -> None:
        self.operator.check_shape(measurement_shape)

    def check(self, y: Tensor) -> None:
        """Raises SettingError if the noise is not one of measurements y of A."""
        self.check_shape(y.shape)
        known = self.operator.mask_unmeasured(torch.ones_like(y))
        if (known == 0).any() and not self.noise.is_independent:
            raise SettingError(
                "noise that is correlated between pixels is not supported for images with "
                "holes: give a noise level"
            )
        self.whiten(torch.zeros_like(y))

    def pinv(self, y: Tensor) -> Tensor:
        if self.operator.is_identity:
            return self.colour(y)
        return self._least_squares(y, torch.zeros(()))

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        if self.plain or not self.operator.is_identity:
            return x + self._least_squares(y - self.A(x), rho)
        weight, level2 = per_image(rho, x), per_image(self.noise.variance(y), y)

        def share(s: Tensor) -> Tensor:  # rho s / (rho s + level^2) = s / (s + tau^2)
            return _weight(weight, s) * s / (_weight(weight, s) * s + _weight(level2, s))

        y = self.colour(y)
        return y + self.noise.apply(share, x - y)

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        signal, white = per_image(c, v), per_image(sigma2, v)
        if self.plain or not self.operator.is_identity:
            return self._cg(lambda p: signal * self.A(self.A_adjoint(p)) + white * p, v)
        level2 = per_image(self.noise.variance(v), v)

        def inverse(s: Tensor) -> Tensor:
            return s / (_weight(signal * level2, s) + _weight(white, s) * s)

        return self.noise.apply(inverse, v)

    def select(self, images: Sequence[int]) -> "Whitened":
        operator, noise = self.operator.select(images), self.noise.select(images)
        return Whitened(operator, noise, self.plain, self.iterations, self.tolerance)

    def mask_unmeasured(self, v: Tensor) -> Tensor:
        return self.operator.mask_unmeasured(v)

    def crop_margin(self, x: Tensor) -> Tensor:
        return self.operator.crop_margin(x)

    def _least_squares(self, y: Tensor, rho: float | Tensor) -> Tensor:
        """Returns argmin_u ||W A u - y||^2 + rho ||u||^2; of smallest norm if rho is 0."""
        b = self.A_adjoint(y)
        weight = per_image(rho, b)
        return self._cg(lambda u: self.A_adjoint(self.A(u)) + weight * u, b)

    def _cg(self, matrix: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
        empty = inner(b, b) == 0
        x = cg(matrix, b, iterations=self.iterations, tolerance=self.tolerance)
        return torch.where(empty, 0, x)


class WhitenedNonlinear(NonlinearOperator, nn.Module):
    """Operator W A(x), for an operator that is not linear, with noise of a given covariance.

    Arguments:
        operator: A; its measurements are (B, C, H, W).
        noise: Law of the noise of its measurements.
    """

    measures_images = False

    def __init__(self, operator: NonlinearOperator, noise: GaussianNoise) -> None:
        super().__init__()
        self.operator, self.noise = operator, noise
        self.takes_float64 = operator.takes_float64
        self.has_several_minima = operator.has_several_minima

    def whiten(self, y: Tensor) -> Tensor:
        """Returns W y, the measurement of this operator, for a measurement y of A."""
        return per_image(self.noise.level(y), y) * self.noise.whiten(y)

    def A(self, x: Tensor) -> Tensor:
        return self.whiten(self.operator.A(x))

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        return self.operator.image_shape(measurement_shape)

    def check_shape(self, measurement_shape: torch.Size) -> None:
        self.operator.check_shape(measurement_shape)

    def check(self, y: Tensor) -> None:
        """Raises SettingError if the noise is not one of measurements y of A."""
        self.check_shape(y.shape)
        self.whiten(torch.zeros_like(y))

    def expansion_point(self, y: Tensor, start: int = 0) -> Tensor:
        return self.operator.expansion_point(
            self.noise.colour(y) / per_image(self.noise.level(y), y), start
        )

    def select(self, images: Sequence[int]) -> "WhitenedNonlinear":
        chosen = cast(NonlinearOperator, self.operator.select(images))
        return WhitenedNonlinear(chosen, self.noise.select(images))


def whitened(
    operator: Operator, noise: GaussianNoise, plain: bool = False
) -> Whitened | WhitenedNonlinear:
    """Returns the operator of whitened measurements.

    Arguments:
        operator: A, linear or not.
        noise: Law of the noise of its measurements.
        plain: See `Whitened`.

    Raises:
        SettingError: The operator rounds, so that the noise has no whitened form.
    """
    if isinstance(operator, NonlinearOperator):
        return WhitenedNonlinear(operator, noise)
    if not operator.is_linear:
        raise SettingError(
            f"{type(operator).__name__} takes no law of the noise, since its error is that of "
            f"rounding: leave noise_std at 0"
        )
    return Whitened(operator, noise, plain)


def _weight(value: Tensor, s: Tensor) -> Tensor:
    """Returns one number per image with as many axes as the eigenvalues."""
    return value.reshape(-1, *[1] * (s.ndim - 1))
