"""Exemplar-based inpainting: the hole is filled with patches of the same image (PatchMatch).

References:
    PatchMatch: A Randomized Correspondence Algorithm for Structural Image Editing, Barnes et
        al., 2009.
    Space-Time Completion of Video, Wexler et al., 2007.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.core.patch_match import PATCH, fill_from_patches
from genprior.core.random_streams import Noise
from genprior.inverse.base import setting
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator


@dataclass(frozen=True)
class Exemplar(Baseline):
    """Fill of holes from known patches of the image; the known pixels keep their noise.

    A pixel that misses one channel is filled in all of them, and its known values are restored.

    Arguments:
        patch: Side of the patches in pixels, odd, >= 3.
        mirror: Whether the mirrored image is a source of patches, too.
    """

    summary: ClassVar[str] = "inpainting with patches of the same image (PatchMatch)"

    patch: int = setting(PATCH, ge=3)
    mirror: bool = False

    def suits(self, operator: Operator) -> bool:
        return operator.is_pixel_mask and not operator.is_identity

    def solve(
        self, y: Tensor, operator: Operator, prior: object, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        known = (operator.mask_unmeasured(torch.ones_like(y)) > 0).all(dim=1)
        rows = zip(y, known, generator.generators, strict=True)
        filled = [fill_from_patches(*row, self.patch, self.mirror).image for row in rows]
        return operator.keep_known(torch.stack(filled), y)

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        return self.solve(y, operator, None, noise_std, Noise(0, range(len(y))))

    @property
    def supports_windows(self) -> bool:
        return False
