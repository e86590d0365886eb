"""Inpainting of OpenCV: fast marching (Telea), and fluid dynamics (Navier-Stokes).

References:
    An Image Inpainting Technique Based on the Fast Marching Method, Telea, 2004.
    Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting, Bertalmio, Bertozzi and Sapiro,
        2001.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.inverse.base import setting
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator


@dataclass(frozen=True)
class _Inpainting(Baseline):
    """`cv2.inpaint`, channel by channel in float32; the known pixels keep their noise.

    OpenCV gets values of 8 bits, 0 to 255, also as floats: its gradients are of that scale.

    Arguments:
        radius: Radius in pixels of the neighbourhood that is used for a missing pixel.

    Raises:
        SettingError: When called: OpenCV is not installed.
    """

    ignores_noise: ClassVar[bool] = True
    flag: ClassVar[str]

    radius: float = setting(3.0, gt=0)

    def suits(self, operator: Operator) -> bool:
        return operator.is_pixel_mask and not operator.is_identity

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        cv2 = _opencv()
        missing = (operator.mask_unmeasured(torch.ones_like(y)) == 0).cpu().numpy()
        filled = [
            [cv2.inpaint(channel, hole.astype(np.uint8), self.radius, getattr(cv2, self.flag))
             for channel, hole in zip(image, holes, strict=True)]
            for image, holes in zip(255 * y.cpu().float().numpy(), missing, strict=True)
        ]
        x = torch.from_numpy(np.array(filled)).to(y) / 255
        return torch.where(torch.from_numpy(missing).to(y.device), x, y)


@dataclass(frozen=True)
class Telea(_Inpainting):
    """OpenCV's inpainting by fast marching."""

    summary: ClassVar[str] = "inpainting by fast marching (needs OpenCV)"
    flag: ClassVar[str] = "INPAINT_TELEA"


@dataclass(frozen=True)
class NavierStokes(_Inpainting):
    """OpenCV's inpainting by fluid dynamics."""

    summary: ClassVar[str] = "inpainting by fluid dynamics (needs OpenCV)"
    flag: ClassVar[str] = "INPAINT_NS"


def _opencv() -> Any:
    try:
        return import_module("cv2")
    except ImportError as error:
        raise SettingError(
            "the baselines telea and navier-stokes need OpenCV: pip install "
            "opencv-python-headless, or choose biharmonic"
        ) from error
