"""Non-local means: each pixel becomes the mean of pixels whose surroundings look alike.

References:
    A Non-Local Algorithm for Image Denoising, Buades, Coll and Morel, 2005 (scikit-image's
    implementation).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from skimage.restoration import denoise_nl_means
from torch import Tensor

from genprior.inverse.base import setting
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator


@dataclass(frozen=True)
class NonLocalMeans(Baseline):
    """scikit-image's `denoise_nl_means`; noise that is correlated counts as white.

    Arguments:
        weight: Cut-off distance of patches, in noise levels.
        patch: Side of the patches in pixels.
        distance: Largest distance of the patches in pixels.
    """

    summary: ClassVar[str] = "denoising by non-local means"
    takes_any_noise: ClassVar[bool] = True

    weight: float = setting(0.6, gt=0)
    patch: int = setting(5, ge=1)
    distance: int = setting(6, ge=1)

    def suits(self, operator: Operator) -> bool:
        return operator.is_identity or operator.is_noisy_image

    def choices(self, noise_std: float) -> Mapping[str, Sequence[Any]]:
        return {"weight": (0.4, 0.6, 0.8, 1.0, 1.3)} if noise_std > 0 else {}

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        y = operator.noisy_image(y) if operator.is_noisy_image else y
        images = []
        for image, sigma in zip(y, noise_std.tolist(), strict=True):
            array = image.permute(1, 2, 0).cpu().double().numpy()
            images.append(array if sigma == 0 else denoise_nl_means(
                array, self.patch, self.distance, self.weight * sigma, fast_mode=True,
                sigma=sigma, channel_axis=-1,
            ))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(y)
