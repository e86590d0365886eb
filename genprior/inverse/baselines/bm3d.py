"""BM3D: collaborative filtering of similar patches, by the authors' package.

References:
    Image Denoising by Sparse 3-D Transform-Domain Collaborative Filtering, Dabov, Foi, Katkovnik
        and Egiazarian, 2007 (the package `bm3d`, whose licence allows non-commercial use only).
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator


@dataclass(frozen=True)
class BM3D(Baseline):
    """The package `bm3d`, in luminance and chrominance for colour images.

    Noise that is correlated counts as white.

    Raises:
        SettingError: When called: the package is not installed.
    """

    summary: ClassVar[str] = "denoising by BM3D (needs the package bm3d)"
    takes_any_noise: ClassVar[bool] = True

    def suits(self, operator: Operator) -> bool:
        return operator.is_identity or operator.is_noisy_image

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        package = _package()
        y = operator.noisy_image(y) if operator.is_noisy_image else y
        images = []
        for image, sigma in zip(y, noise_std.tolist(), strict=True):
            array = image.permute(1, 2, 0).cpu().double().numpy()
            if sigma > 0:
                method = package.bm3d_rgb if len(image) == 3 else package.bm3d
                array = method(array, sigma).reshape(array.shape)
            images.append(array)
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(y)


def _package() -> Any:
    try:
        return import_module("bm3d")
    except ImportError as error:
        raise SettingError(
            "the baseline bm3d needs the package bm3d: pip install bm3d, or choose nlm"
        ) from error
