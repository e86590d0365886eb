"""Periodic component of an image: its details without the jumps between opposite borders.

u = p + s, where p has the Laplacian of u inside the image and periodic borders:

    p(k) = laplacian(u)(k) / (4 - 2 cos(2 pi k1 / H) - 2 cos(2 pi k2 / W)),    p(0) = u(0)

References:
    Periodic plus Smooth Image Decomposition, Moisan, 2011.
"""

import math

import torch
from torch import Tensor


def periodic_component(u: Tensor) -> Tensor:
    """Returns the periodic component p of images u = p + s; the smooth s holds the border jumps.

    p has the Laplacian of u inside the image and periodic borders, and the mean of u.

    Arguments:
        u: Images, shape (..., H, W).
    """
    height, width = u.shape[-2:]
    laplacian = torch.zeros_like(u)
    down, right = u.diff(dim=-2), u.diff(dim=-1)
    laplacian[..., :-1, :] -= down
    laplacian[..., 1:, :] += down
    laplacian[..., :-1] -= right
    laplacian[..., 1:] += right
    row = torch.arange(height, dtype=u.dtype, device=u.device) * (2 * math.pi / height)
    column = torch.arange(width, dtype=u.dtype, device=u.device) * (2 * math.pi / width)
    symbol = 4 - 2 * row.cos()[:, None] - 2 * column.cos()
    symbol[0, 0] = 1
    p = torch.fft.fft2(laplacian) / symbol
    p[..., 0, 0] = u.sum(dim=(-2, -1))
    return torch.fft.ifft2(p).real
