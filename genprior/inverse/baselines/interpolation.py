"""Bicubic and Lanczos interpolation for super-resolution, aligned with the sampling grid.

    x(j) = sum over i of y(i) w(j / f - o - i)

where low-resolution pixel i lies at f (i + o). The offset o is computed from the operator: it
is the centre of mass of A^T applied to one pixel.

References:
    Cubic Convolution Interpolation for Digital Image Processing, Keys, 1981.
    Filters for Common Resampling Tasks, Turkowski, 1990 (Lanczos, 3 lobes).
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator

SHARPNESS = -0.75


@dataclass(frozen=True)
class Interpolation(Baseline):
    """Separable interpolation of a downsampled image; edge pixels are repeated at the border."""

    ignores_noise: ClassVar[bool] = True
    support: ClassVar[int]

    def suits(self, operator: Operator) -> bool:
        return isinstance(getattr(operator, "factor", None), int)

    @abstractmethod
    def kernel(self, t: Tensor) -> Tensor:
        """Returns the weight at distance t >= 0, in pixels of y."""

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        shape = operator.image_shape(y.shape)
        rows, columns = (
            self._weights(shape[axis], y.shape[axis], operator.factor, offset).to(y)
            for axis, offset in zip((2, 3), _offsets(operator, y), strict=True)
        )
        return rows @ y @ columns.T

    def _weights(self, fine: int, coarse: int, factor: int, offset: float) -> Tensor:
        """Returns the interpolation matrix (fine, coarse) of one axis."""
        position = torch.arange(fine, dtype=torch.float64) / factor - offset
        first = position.floor() - self.support + 1
        taps = first[:, None] + torch.arange(2 * self.support)
        weights = self.kernel((position[:, None] - taps).abs())
        weights = weights / weights.sum(dim=1, keepdim=True)
        matrix = torch.zeros(fine, coarse, dtype=torch.float64)
        return matrix.scatter_add(1, taps.long().clamp(0, coarse - 1), weights)


@dataclass(frozen=True)
class Bicubic(Interpolation):
    """Keys' cubic kernel with a = -0.75, as in torch and OpenCV."""

    summary: ClassVar[str] = "bicubic interpolation"
    support: ClassVar[int] = 2

    def kernel(self, t: Tensor) -> Tensor:
        a = SHARPNESS
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * (t**3 - 5 * t**2 + 8 * t - 4)
        return torch.where(t <= 1, near, torch.where(t < 2, far, 0))


@dataclass(frozen=True)
class Lanczos(Interpolation):
    """Lanczos kernel: windowed sinc with 3 lobes."""

    summary: ClassVar[str] = "Lanczos interpolation"
    support: ClassVar[int] = 3

    def kernel(self, t: Tensor) -> Tensor:
        return torch.where(t < 3, torch.sinc(t) * torch.sinc(t / 3), 0)


def _offsets(operator: Operator, y: Tensor) -> list[float]:
    """Returns the offset o per axis: the position of pixel i of y minus i, in pixels of y."""
    middle = [side // 2 for side in y.shape[2:]]
    impulse = torch.zeros_like(y[:1])
    impulse[..., middle[0], middle[1]] = 1
    mass = operator.A_adjoint(impulse).cpu().double().mean(dim=(0, 1))
    offsets = []
    for axis, at in enumerate(middle):
        line = mass.sum(dim=1 - axis)
        centre = (line * torch.arange(len(line)).to(line)).sum() / line.sum()
        offsets.append(_rounded(centre.item() / operator.factor - at, operator.factor))
    return offsets


def _rounded(offset: float, factor: int) -> float:
    """Removes rounding errors: filters are centred on a pixel or midway between two pixels."""
    return math.floor(2 * factor * offset + 0.5) / (2 * factor)
