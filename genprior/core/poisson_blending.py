"""Screened Poisson blending: a hole with the texture of one image and the tones of another.

    u = argmin_u  sum_(p,q) |u_q - u_p - g_pq|^2 + screening sum_p |u_p - m_p|^2

over the pixels p of the hole, with u = m at the known pixels, for all neighbours p, q of which at
least one is in the hole. g holds the wanted differences of neighbours, such as those of a copy; m
holds the wanted tones. Structures of m that are wider than about 2 pi / sqrt(screening) pixels
survive, finer ones are those of g.

References:
    Poisson Image Editing, Perez et al., 2003.
    Fourier Analysis of the 2D Screened Poisson Equation for Gradient Domain Problems, Bhat et al.,
        2008.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from genprior.core.linalg import cg

TOLERANCE = 1e-4
ITERATIONS = 2000


def screened_poisson(
    tones: Tensor, hole: Tensor, down: Tensor, right: Tensor, screening: float
) -> Tensor:
    """Returns images whose hole has given differences of neighbours and, roughly, given tones.

    Arguments:
        tones: Images m, shape (B, C, H, W); their known pixels are kept.
        hole: True in the hole, shape (B or 1, 1, H, W).
        down: Wanted x[i + 1, j] - x[i, j], shape (B, C, H - 1, W).
        right: Wanted x[i, j + 1] - x[i, j], shape (B, C, H, W - 1).
        screening: Weight of the tones, > 0, per squared pixel.

    Returns:
        Images (B, C, H, W), not clipped.
    """
    rows, columns = _around(hole)
    part = (..., rows, columns)
    m, inside = tones[part], hole[part].to(tones)
    down = down[..., rows.start : rows.stop - 1, columns]
    right = right[..., rows, columns.start : columns.stop - 1]

    def matrix(v: Tensor) -> Tensor:
        v = v * inside
        return inside * (_adjoint_diff(v.diff(dim=-2), v.diff(dim=-1)) + screening * v)

    # The unknown is the difference to m, which is 0 outside the hole.
    missing = inside * _adjoint_diff(down - m.diff(dim=-2), right - m.diff(dim=-1))
    change = cg(matrix, missing, iterations=ITERATIONS, tolerance=TOLERANCE)
    blended = tones.clone()
    blended[part] = torch.where(hole[part], m + change, m)
    return blended


def _around(hole: Tensor) -> tuple[slice, slice]:
    """Returns the rows and columns of all holes, and one more on each side."""
    found = []
    for axis in (-1, -2):
        lines = hole.any(dim=axis).flatten(0, -2).any(dim=0).nonzero().flatten().tolist() or [0]
        found.append(slice(max(lines[0] - 1, 0), lines[-1] + 2))
    return found[0], found[1]


def _adjoint_diff(down: Tensor, right: Tensor) -> Tensor:
    """Returns the adjoint of the differences of neighbours, shape (B, C, H, W)."""
    vertical = pad(down, (0, 0, 1, 0)) - pad(down, (0, 0, 0, 1))
    return vertical + pad(right, (1, 0)) - pad(right, (0, 1))
