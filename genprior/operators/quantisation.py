"""Quantisation operator: values rounded to a few levels (posterised images, few bits, palettes).

    y = round((L - 1) x) / (L - 1),    so    |x - y| <= 1 / (2 (L - 1))

The truth lies in a known cell at every pixel; the cells of black and white reach beyond.
"""

from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.operators.base import Quantiser
from genprior.operators.truncated_normal import truncated_mean

# Spreads below, in image units, count as 0. The cells of black and white reach this far.
SMALLEST_SPREAD, REACH = 1e-6, 1.0
# A value may differ by this from a level: half a step of 8 bits, and rounding.
STORED = 0.51 / 255


class Quantisation(Quantiser, nn.Module):
    """Rounding of every value to one of a number of levels in [0, 1].

    Arguments:
        levels: L >= 2: 2 is black and white, 8 are 3 bits.

    Raises:
        SettingError: There are fewer than two levels.
    """

    is_pointwise = True

    def __init__(self, levels: int = 8) -> None:
        super().__init__()
        if not (isinstance(levels, int) and levels >= 2):
            raise SettingError(f"levels must be a whole number of at least 2, got {levels!r}")
        self.levels = levels

    @property
    def half(self) -> float:
        """Half of the width of a cell, in image units."""
        return 0.5 / (self.levels - 1)

    def A(self, x: Tensor) -> Tensor:
        return self._nearest(x)

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        if len(measurement_shape) != 4:
            raise ValueError(
                f"images must be a batch (batch, channels, height, width), got shape "
                f"{tuple(measurement_shape)}"
            )
        return torch.Size(measurement_shape)

    def conditional_mean(self, x: Tensor, y: Tensor, spread: float | Tensor) -> Tensor:
        level = self._nearest(y)
        low = torch.where(level <= 0, -REACH, level - self.half)
        high = torch.where(level >= 1, 1 + REACH, level + self.half)
        return truncated_mean(x, per_image(spread, x), low, high, SMALLEST_SPREAD)

    def error_std(self, y: Tensor) -> Tensor:
        return y.new_full((len(y),), self.half / 3**0.5)

    def unexplained(self, y: Tensor) -> Tensor:
        return ((y - self._nearest(y)).abs() > STORED).flatten(1).to(y.dtype).mean(dim=1)

    def doubt(self, share: float) -> str:
        return (
            f"{share:.0%} of its values are none of the {self.levels} levels: was it resized or "
            f"edited afterwards, or has it another number of levels?"
        )

    def described(self) -> dict[str, Any]:
        return {"levels": self.levels}

    def _nearest(self, y: Tensor) -> Tensor:
        steps = self.levels - 1
        return (y.clamp(0, 1) * steps).round() / steps
