"""Base class of super-resolution operators: filter, then decimation by an integer factor."""

from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genprior.operators.base import Operator

BOUNDARIES = ("symmetric", "reflect", "circular")


class Downsampling(Operator, nn.Module):
    """Operator that keeps every f-th pixel of a filtered image.

    Arguments:
        factor: Integer f >= 2.
        boundary: Rule for pixels outside the image, one of `BOUNDARIES`.
        image_size, output_size: See `SuperResolution`.

    Raises:
        ValueError: A setting has another value.
    """

    is_downsampling = True

    def __init__(
        self,
        factor: int,
        boundary: str,
        image_size: tuple[int, int] | None,
        output_size: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        is_number = isinstance(factor, Real) and not isinstance(factor, bool)
        if not (is_number and float(factor).is_integer() and factor >= 2):
            raise ValueError(
                f"the factor of super-resolution must be an integer of at least 2, got {factor}"
            )
        check_known("boundary", boundary, BOUNDARIES)
        self.factor, self.boundary = int(factor), boundary
        self.image_size = _size("image_size", image_size)
        self.output_size = _size("output_size", output_size)

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        batch, channels, h, w = measurement_shape
        size = self.image_size or (h * self.factor, w * self.factor)
        if self._measured_size(size) != (h, w):
            raise ValueError(
                f"images of {size[0]}x{size[1]} pixels have measurements of "
                f"{'x'.join(map(str, self._measured_size(size)))}, got {h}x{w}: "
                f"change image_size or factor"
            )
        return torch.Size((batch, channels, *size))

    def crop_margin(self, x: Tensor) -> Tensor:
        if self.output_size is None:
            return x
        return interpolate(x, self.output_size, mode="bicubic", antialias=True)

    def _measured_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return tuple(-(-n // self.factor) for n in size)

    def _check_size(self, shape: torch.Size) -> None:
        """Raises ValueError unless images of a shape have the given `image_size`."""
        size = tuple(shape[-2:])
        if self.image_size not in (None, size):
            raise ValueError(f"image_size is {self.image_size}, got an image of {size} pixels")


def _size(setting: str, size: tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    if np.shape(size) != (2,):
        raise ValueError(f"{setting} must be (height, width), got {size}")
    return tuple(size)


def check_known(setting: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ValueError unless the value of a setting is a known one."""
    if value not in known:
        raise ValueError(f"unknown {setting} {value!r}: choose one of {', '.join(known)}")
