"""Compressed sensing operator: randomly chosen coefficients of an orthonormal transform.

    y = M H D x,    H D orthonormal,    M = 1 at measured coefficients, else 0

D flips the signs of random pixels, which spreads every image over all coefficients, and H is the
discrete Hartley transform, the real form of the Fourier transform. A measurement has the size of
the image, with 0 at coefficients that are not measured. A A^T = M: all solves are exact.

References:
    Fast and Efficient Compressive Sensing Using Structurally Random Matrices, Do, Gan, Nguyen and
        Tran, 2012.
    Discrete Hartley transform, Bracewell, 1983.

Differs from the paper:
    1. The coefficients are scaled to an orthonormal transform, not by sqrt(pixels / coefficients).
    2. The transform is that of the whole image, also if its sides are no powers of 2.
"""

import math

import torch
from torch import Tensor, nn
from torch.fft import fft2

from genprior.core.linalg import Singular, per_image
from genprior.operators.base import Operator
from genprior.operators.cache import SharedCache


class CompressedSensing(Operator, nn.Module):
    """Random coefficients of a scrambled Hartley transform, the same ones for all channels.

    Arguments:
        ratio: Share of the coefficients that are measured, 0 < ratio <= 1; at least one is.
        seed: Seed of the signs and of the choice, >= 0; they depend on it and on the size only.

    Raises:
        ValueError: The ratio or the seed is out of its range.
    """

    measures_images = False

    def __init__(self, ratio: float, seed: int = 0) -> None:
        super().__init__()
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be > 0 and at most 1, got {ratio}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or a positive integer, got {seed}")
        self.ratio, self.seed = float(ratio), int(seed)
        self._cache: SharedCache[tuple[Tensor, Tensor]] = SharedCache()

    def A(self, x: Tensor) -> Tensor:
        keep, signs = self._at(x)
        return keep * _hartley(signs * x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        keep, signs = self._at(y)
        return signs * _hartley(keep * y)

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        if len(measurement_shape) != 4:
            raise ValueError(
                f"measurements must have the shape of the images (batch, channels, height, "
                f"width), got {tuple(measurement_shape)}"
            )
        return torch.Size(measurement_shape)

    def pinv(self, y: Tensor) -> Tensor:
        return self.A_adjoint(y)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        return x + self.A_adjoint(y - self.A(x)) / (1 + per_image(rho, x))

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        keep, _ = self._at(v)
        c, sigma2 = per_image(c, v), per_image(sigma2, v)
        missing = torch.where(sigma2 > 0, v / torch.where(sigma2 > 0, sigma2, 1), 0)
        return torch.where(keep > 0, v / (c + sigma2), missing)

    def mask_unmeasured(self, v: Tensor) -> Tensor:
        return torch.where(self._at(v)[0] > 0, v, 0)

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        keep, signs = self._at(like.new_zeros(()).expand(image_shape))
        return Singular(
            keep, lambda x: _hartley(signs * x), lambda c: signs * _hartley(c), lambda y: y
        )

    def _at(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the measured coefficients, 1 or 0, and the signs, each (1, 1, H, W)."""
        size = tuple(like.shape[-2:])

        def build() -> tuple[Tensor, Tensor]:
            generator = torch.Generator().manual_seed(self.seed)
            pixels = math.prod(size)
            signs = torch.randint(0, 2, (pixels,), generator=generator) * 2 - 1
            keep = torch.zeros(pixels)
            count = max(1, round(self.ratio * pixels))
            keep[torch.randperm(pixels, generator=generator)[:count]] = 1
            return tuple(t.to(like).reshape(1, 1, *size) for t in (keep, signs))

        return self._cache.get((size, like.dtype, like.device), build)


def _hartley(x: Tensor) -> Tensor:
    """Returns the orthonormal two-dimensional Hartley transform, which is its own inverse."""
    f = fft2(x, norm="ortho")
    return f.real - f.imag
