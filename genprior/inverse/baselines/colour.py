"""Classical colorization and demosaicing: grey, bilinear, and gradient-corrected interpolation.

    grey        R = G = B = y
    bilinear    the mean of the nearest measured values of each colour
    Malvar      bilinear plus a multiple of the Laplacian of the measured colour at the pixel

References:
    High-Quality Linear Interpolation for Demosaicing of Bayer-Patterned Color Images, Malvar, He
        and Cutler, 2004.

Differs from the paper:
    The image is mirrored at its edge pixels, which keeps the pattern of the colours.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import ColourFilter, Operator

MARGIN = 2
# Filters of the paper, times 8: green at red or blue; red at green in rows of red; red at blue.
GREEN = ((0, 0, -1, 0, 0), (0, 0, 2, 0, 0), (-1, 2, 4, 2, -1), (0, 0, 2, 0, 0), (0, 0, -1, 0, 0))
ACROSS = ((0, 0, 0.5, 0, 0), (0, -1, 0, -1, 0), (-1, 4, 5, 4, -1), (0, -1, 0, -1, 0),
          (0, 0, 0.5, 0, 0))
DIAGONAL = ((0, 0, -1.5, 0, 0), (0, 2, 0, 2, 0), (-1.5, 0, 6, 0, -1.5), (0, 2, 0, 2, 0),
            (0, 0, -1.5, 0, 0))
NEAR = ((1, 2, 1), (2, 4, 2), (1, 2, 1))


@dataclass(frozen=True)
class Grey(Baseline):
    """The grey image itself, as a colour image without colours."""

    summary: ClassVar[str] = "colorization: the grey image itself"
    ignores_noise: ClassVar[bool] = True

    def suits(self, operator: Operator) -> bool:
        return isinstance(operator, ColourFilter) and operator.is_uniform

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        return cast(ColourFilter, operator).grey(y)


@dataclass(frozen=True)
class Bilinear(Baseline):
    """Bilinear demosaicing; the mean is weighted by distance at the border."""

    summary: ClassVar[str] = "demosaicing by bilinear interpolation"
    ignores_noise: ClassVar[bool] = True

    def suits(self, operator: Operator) -> bool:
        return _is_bayer(operator)

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        seen = operator.A_adjoint(torch.ones_like(y))
        kernel = y.new_tensor(NEAR).expand(3, 1, 3, 3)
        total = conv2d(operator.A_adjoint(y), kernel, padding=1, groups=3)
        weight = conv2d(seen, kernel, padding=1, groups=3)
        # green has diagonal neighbours too; an image of one row or column may lack a colour
        return torch.where((seen == 0) & (weight > 0), total / weight.clamp(min=1), y)


@dataclass(frozen=True)
class Malvar(Baseline):
    """Gradient-corrected linear demosaicing of Malvar, He and Cutler."""

    summary: ClassVar[str] = "demosaicing by gradient-corrected interpolation (Malvar)"
    ignores_noise: ClassVar[bool] = True

    def suits(self, operator: Operator) -> bool:
        return _is_bayer(operator)

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        red, green, blue = operator.A_adjoint(torch.ones_like(y)).split(1, dim=1)
        padded = _mirrored(_mirrored(y, -2), -1)

        def filtered(taps: tuple) -> Tensor:
            return conv2d(padded, y.new_tensor(taps)[None, None] / 8)

        across, down = filtered(ACROSS), filtered(tuple(zip(*ACROSS, strict=True)))
        diagonal = filtered(DIAGONAL)

        def colour(own: Tensor, other: Tensor) -> Tensor:
            in_row = own.amax(dim=-1, keepdim=True)  # whether a row has pixels of this colour
            at_green = torch.where(in_row > 0, across, down)
            return torch.where(own > 0, y, torch.where(other > 0, diagonal, at_green))

        g = torch.where(green > 0, y, filtered(GREEN))
        return torch.cat([colour(red, blue), g, colour(blue, red)], dim=1)


def _is_bayer(operator: Operator) -> bool:
    return isinstance(operator, ColourFilter) and operator.weights.shape[-2:] == (2, 2)


def _mirrored(y: Tensor, axis: int) -> Tensor:
    """Returns an image with a margin of 2 pixels along an axis, mirrored at the edge pixels."""
    size = y.shape[axis]
    period = max(2 * (size - 1), 1)
    index = torch.arange(-MARGIN, size + MARGIN, device=y.device) % period
    return y.index_select(axis, torch.minimum(index, (period - index).clamp(max=size - 1)))
