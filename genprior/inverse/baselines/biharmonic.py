"""Biharmonic inpainting: a smooth surface through the known pixels, Delta^2 x = 0.

References:
    On surface completion and image inpainting by biharmonic functions: Numerical aspects,
    Damelin and Hoang, 2018 (scikit-image's implementation).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator


@dataclass(frozen=True)
class Biharmonic(Baseline):
    """scikit-image's `inpaint_biharmonic`; the known pixels keep their noise."""

    ignores_noise: ClassVar[bool] = True
    summary: ClassVar[str] = "inpainting by biharmonic functions"

    def suits(self, operator: Operator) -> bool:
        return operator.is_pixel_mask and not operator.is_identity

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        ones = torch.ones_like(y, memory_format=torch.contiguous_format)  # as scikit-image needs
        missing = operator.mask_unmeasured(ones) == 0
        return torch.stack([_filled(*pair) for pair in zip(y, missing, strict=True)])


def _filled(y: Tensor, missing: Tensor) -> Tensor:
    """Fills one image (C, H, W); channels with the same missing pixels are filled together."""
    if (missing == missing[:1]).all():
        array = y.permute(1, 2, 0).cpu().double().numpy()
        filled = inpaint_biharmonic(array, missing[0].cpu().numpy(), channel_axis=-1)
        return torch.from_numpy(filled).permute(2, 0, 1).to(y)
    channels = zip(y.cpu().double().numpy(), missing.cpu().numpy(), strict=True)
    return torch.stack([torch.from_numpy(inpaint_biharmonic(*pair)) for pair in channels]).to(y)
