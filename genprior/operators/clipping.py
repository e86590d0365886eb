"""Clipping operator: over-exposure, as of a camera whose sensor saturates (HDR reconstruction).

    y = clip(p + f (x - p), 0, w)

x is the scene, y a photo of it that is f times as bright; what is above the white level w is
lost. With p = 0 only highlights are clipped. With p = 1/2 shadows are clipped too: this is the
operator of "high dynamic range" in papers, clip(2 x, -1, 1) of images in [-1, 1].

References:
    Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, Zhang et al., 2024.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.operators.nonlinear import NonlinearOperator

# In the start, clipped pixels lie beyond the limit by this share of the range that is left, far
# from pixels that are known. The mean over training photos is 0.41 to 0.58, for limits of 0.4 to
# 0.8. On two over-exposed photos this start had 5 and 8 dB more than the limit itself.
LIFT = 0.45
# Radius in pixels, and number, of the box means over which the lift rises from 0 at the border.
RADIUS, BOXES = 4, 3
# Values this many standard deviations of the noise within a limit count as clipped.
NEAR = 3.0
# Least distance from the limit, in image units: there A is constant, as it is for the truth.
BEYOND = 1e-3


class Clipping(NonlinearOperator, nn.Module):
    """Over-exposure: the image is made brighter, or its contrast higher, and clipped.

    Arguments:
        factor: f > 1, the ratio of the exposures.
        pivot: p in [0, 1], the value that does not change: 0 clips highlights only, 1 shadows
            only.
        white: w, the value at which highlights are clipped, pivot < w <= 1. Values of y from w on
            tell only that the scene is at least so bright.

    Raises:
        SettingError: An argument is out of its range.
    """

    is_pointwise = True

    def __init__(self, factor: float = 2.0, pivot: float = 0.0, white: float = 1.0) -> None:
        super().__init__()
        if not 1 < factor < float("inf"):
            raise SettingError(f"factor must be > 1 and finite, got {factor}")
        if not 0 <= pivot <= 1:
            raise SettingError(f"pivot must be between 0 and 1, got {pivot}")
        if not (pivot < white <= 1 or pivot == white == 1):
            raise SettingError(f"white must be above the pivot and at most 1, got {white}")
        self.factor, self.pivot, self.white = factor, pivot, white

    @property
    def limits(self) -> tuple[float, float]:
        """The values of x from which on shadows and highlights are clipped."""
        return (
            self.pivot - self.pivot / self.factor,
            self.pivot + (self.white - self.pivot) / self.factor,
        )

    def A(self, x: Tensor) -> Tensor:
        return self._brightened(x).clamp(0, self.white)

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        return _checked_shape(measurement_shape)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Returns argmin_u ||A(u) - y||^2 + rho ||u - x||^2, in closed form.

        Arguments:
            x: Images, shape (B, C, H, W).
            y: Measurements.
            rho: Weight >= 0, a number or shape (B,). At 0 the result is the image nearest to x
                among those that fit y best.
        """
        rho, (low, high) = per_image(rho, x), self.limits
        f = self.factor
        inside = (f * (y - self.pivot * (1 - f)) + rho * x) / (f**2 + rho)
        inside = inside.clamp(low, high)
        cost = (self._brightened(inside) - y) ** 2 + rho * (inside - x) ** 2
        # beyond a limit A is constant: there the minimum is x itself
        above = (x >= high) & ((y >= self.white) | ((self.white - y) ** 2 < cost))
        below = (x <= low) & ((y <= 0) | (y**2 < cost))
        return torch.where(above | below, x, inside)

    def proximal(self, y: Tensor) -> Callable[[Tensor, float | Tensor], Tensor]:
        """Returns (x, rho) -> prox(x, y', rho), with `snapped` values y'.

        With those the pixels beyond a limit are a one-sided constraint, in spite of noise. With y
        itself the half of them whose noise points inwards seemed to be known, and was pulled to
        the limit at every step.
        """
        snapped = self.snapped(y)
        return lambda x, rho: self.prox(x, snapped, rho)

    def snapped(self, y: Tensor) -> Tensor:
        """Returns y, with the values that noise has moved off a limit set to it.

        Only noise takes values out of [0, 1], so its level is their RMS distance from that range.
        Without noise, and for files, which hold no such values, the result is y up to the limits.

        Arguments:
            y: Measurements, shape (B, C, H, W).
        """
        beyond = (y - y.clamp(0, 1)).flatten(1)
        count = (beyond != 0).sum(dim=1).clamp(min=1)
        near = NEAR * per_image((beyond.square().sum(dim=1) / count).sqrt(), y)
        y = torch.where(y >= self.white - near, self.white, y)
        return torch.where(y <= near, 0, y) if self.pivot > 0 else y

    def expansion_point(self, y: Tensor, start: int = 0) -> Tensor:
        """Returns the inverse of `snapped` y, its clipped pixels lifted beyond the limits.

        The lift rises smoothly from the borders of the clipped areas into them.

        Arguments:
            y: Measurements, shape (B, C, H, W).
            start: Not used.
        """
        y, (low, high) = self.snapped(y), self.limits
        x = (y - self.pivot * (1 - self.factor)) / self.factor
        lift = _depth(y >= self.white, y) * LIFT * (1 - high)
        x = torch.where(y >= self.white, high + lift.clamp(min=BEYOND), x)
        if self.pivot == 0:
            return x
        drop = _depth(y <= 0, y) * LIFT * low
        return torch.where(y <= 0, low - drop.clamp(min=BEYOND), x)

    def pinv(self, y: Tensor) -> Tensor:
        return ((y - self.pivot * (1 - self.factor)) / self.factor).clamp(*self.limits)

    def keep_known(self, x: Tensor, y: Tensor) -> Tensor:
        return self.prox(x, y, 0.0)

    def _brightened(self, x: Tensor) -> Tensor:
        return self.pivot + self.factor * (x - self.pivot)


class Gamma(NonlinearOperator, nn.Module):
    """Power law of a tone curve, y = x^g, as of displays and cameras.

    Below x = 1/1000 it is a straight line through 0, so that its slope is finite there and
    negative numbers of a denoiser are allowed.

    Arguments:
        gamma: g > 0: below 1 the image becomes brighter, above darker. 1/2.2 encodes linear light.

    Raises:
        SettingError: The exponent is not > 0 and finite.
    """

    is_pointwise = True
    STRAIGHT = 1e-3

    def __init__(self, gamma: float = 1 / 2.2) -> None:
        super().__init__()
        if not 0 < gamma < float("inf"):
            raise SettingError(f"gamma must be > 0 and finite, got {gamma}")
        self.gamma = gamma

    def A(self, x: Tensor) -> Tensor:
        low = self.STRAIGHT
        return torch.where(x > low, x.clamp(min=low) ** self.gamma, x * low ** (self.gamma - 1))

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        return _checked_shape(measurement_shape)

    def expansion_point(self, y: Tensor, start: int = 0) -> Tensor:
        low = self.STRAIGHT**self.gamma
        power = y.clamp(min=low) ** (1 / self.gamma)
        return torch.where(y > low, power, y * self.STRAIGHT ** (1 - self.gamma))

    def pinv(self, y: Tensor) -> Tensor:
        return self.expansion_point(y)

    def keep_known(self, x: Tensor, y: Tensor) -> Tensor:
        return self.pinv(y)


def _depth(clipped: Tensor, like: Tensor) -> Tensor:
    """Returns 0 at the border of the clipped areas, and nearly 1 well inside them."""
    share = clipped.to(like)
    for _ in range(BOXES):
        share = avg_pool2d(share, 2 * RADIUS + 1, 1, RADIUS, count_include_pad=False)
    return (2 * share - 1).clamp(min=0)


def _checked_shape(measurement_shape: torch.Size) -> torch.Size:
    if len(measurement_shape) != 4:
        raise ValueError(
            f"images must be a batch (batch, channels, height, width), got shape "
            f"{tuple(measurement_shape)}"
        )
    return torch.Size(measurement_shape)
