"""Colour filters: one number for each pixel of a colour image, for colorization and demosaicing.

    y(p) = sum_c w_c(p) x_c(p),    A^T y = w y,    A A^T = |w|^2

All solves are closed forms for each pixel. The weights w are those of the luminance, the same at
all pixels, or those of a colour filter array: 1 for the colour that the pixel of a sensor sees.

References:
    Recommendation ITU-R BT.601 (luminance).
    Color imaging array, Bayer, US patent 3971065, 1976.
"""

import torch
from torch import Tensor, nn

from genprior.core.linalg import Singular, per_image
from genprior.operators.base import ColourFilter
from genprior.operators.jpeg_tables import LUMA_WEIGHTS

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")


class _PeriodicFilter(ColourFilter, nn.Module):
    """Colour filter with closed-form solves; see `ColourFilter` for its weights.

    A measurement has one channel, an image three.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights.float())

    def A(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(
                f"{self.task} measures colour images (batch, 3, height, width), got shape "
                f"{tuple(x.shape)}: give a colour image"
            )
        return (self._weights(x) * x).sum(dim=1, keepdim=True)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self._weights(y) * y

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        if len(measurement_shape) != 4 or measurement_shape[1] != 1:
            raise ValueError(
                f"{self.task} takes images of one channel (batch, 1, height, width), got shape "
                f"{tuple(measurement_shape)}: apply the operator to a colour image first"
            )
        return torch.Size((measurement_shape[0], 3, *measurement_shape[2:]))

    def pinv(self, y: Tensor) -> Tensor:
        return self.A_adjoint(y / self._power(y))

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        return x + self.A_adjoint((y - self.A(x)) / (self._power(y) + per_image(rho, y)))

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        return v / (per_image(c, v) * self._power(v) + per_image(sigma2, v))

    def keep_known(self, x: Tensor, y: Tensor) -> Tensor:
        return self.prox(x, y, 0.0)

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        s = self._power(like.new_zeros(()).expand(1, 1, *image_shape[2:])).sqrt().to(like)
        return Singular(
            s, lambda x: self.A(x) / s, lambda c: self.A_adjoint(c) / s, lambda y: y
        )

    def from_pixels(self, pixels: Tensor) -> Tensor:
        # a grey image may be stored in colour, and a mosaic with the colour of each pixel
        return pixels if pixels.shape[1] == 1 else self.A(pixels)

    @property
    def task(self) -> str:
        """Name of the task, for messages."""
        raise NotImplementedError

    def _weights(self, like: Tensor) -> Tensor:
        (h, w), (height, width) = self.weights.shape[-2:], like.shape[-2:]
        tile = self.weights.to(like)
        if (h, w) == (1, 1):
            return tile
        return tile.repeat(1, 1, -(-height // h), -(-width // w))[..., :height, :width]

    def _power(self, like: Tensor) -> Tensor:
        return self._weights(like).square().sum(dim=1, keepdim=True)


class Luminance(_PeriodicFilter):
    """Grey image of a colour image: its luminance, for colorization.

    Arguments:
        weights: Weights of red, green and blue, >= 0, not all 0.

    Raises:
        ValueError: There are not three weights, or they are not such numbers.
    """

    task = "colorize"

    def __init__(self, weights: tuple[float, float, float] = LUMA_WEIGHTS) -> None:
        w = torch.as_tensor(weights, dtype=torch.float64)
        if w.shape != (3,) or not w.isfinite().all() or (w < 0).any() or not w.any():
            raise ValueError(
                f"weights must be three numbers >= 0 for red, green and blue, not all 0; got "
                f"{weights}"
            )
        super().__init__(w.reshape(1, 3, 1, 1))


class Mosaic(_PeriodicFilter):
    """Colour filter array of a sensor: one colour for each pixel, for demosaicing.

    Arguments:
        pattern: Colours of the upper left 2 x 2 pixels, row by row: "RGGB", "BGGR", "GRBG" or
            "GBRG".

    Raises:
        ValueError: The pattern is another one.
    """

    task = "demosaic"

    def __init__(self, pattern: str = "RGGB") -> None:
        if pattern not in PATTERNS:
            raise ValueError(
                f"unknown pattern {pattern!r}: choose one of {', '.join(PATTERNS)}"
            )
        weights = torch.zeros(3, 4, dtype=torch.float64)
        weights[["RGB".index(colour) for colour in pattern], range(4)] = 1
        super().__init__(weights.reshape(1, 3, 2, 2))
        self.pattern = pattern
