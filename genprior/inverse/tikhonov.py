"""Tikhonov regularisation with a Laplacian penalty: the start of iterative solvers.

    argmin_x ||A x - y||^2 + weight ||Laplacian x||^2

An operator that is not linear is linearised at its `expansion_point`. If it acts on each value
alone, that point is an inverse, and the result; if its data have several minima, it is too, since
the linear model holds near it only.
The problem is solved from coarse to fine, so that large holes are filled in few iterations. At
factor f the image is constant on blocks of f x f pixels. A grey image leaves its colours open:
it is its own solution, without colours.

References:
    Solutions of Ill-Posed Problems, Tikhonov and Arsenin, 1977.
"""

import torch
from torch import Tensor
from torch.nn import functional

from genprior.core.linalg import cg, per_image, sum_blocks
from genprior.operators.base import ColourFilter, Operator

WEIGHT = 0.01
FLAT = 32  # in eps: data and Laplacian leave directions of less relative curvature undetermined
FACTORS = (32, 16, 8, 4, 2, 1)


def laplacian(x: Tensor) -> Tensor:
    """Returns -div grad of images (B, C, H, W) on the grid, mirrored at the border; symmetric."""
    down, right = x.diff(dim=-2), x.diff(dim=-1)
    pad = functional.pad
    vertical = pad(down, (0, 0, 1, 0)) - pad(down, (0, 0, 0, 1))
    return vertical + pad(right, (1, 0)) - pad(right, (0, 1))


def smooth_start(
    y: Tensor, operator: Operator, iterations: int = 20, weight: float | Tensor = WEIGHT
) -> Tensor:
    """Returns the Tikhonov solution for any operator, by conjugate gradient.

    Arguments:
        y: Measurements, shape (B, ...).
        operator: Operator of the measurements, differentiable.
        iterations: Iterations at each scale.
        weight: Weight of the Laplacian term; a number or shape (B,).

    Returns:
        Images, shape (B, C, H, W).
    """
    shape = operator.image_shape(y.shape)
    height, width = shape[-2:]
    if isinstance(operator, ColourFilter) and operator.is_uniform:
        return operator.grey(y)
    if operator.is_pointwise or operator.has_several_minima:
        return operator.expansion_point(y)
    if not operator.is_linear:
        operator, y = operator.linearised(operator.expansion_point(y), y)

    data = operator.A_adjoint(y)
    c, flat = None, FLAT * torch.finfo(data.dtype).eps
    for factor in FACTORS:
        rows, columns = -(-height // factor), -(-width // factor)
        if c is None:
            c = data.new_full((*shape[:2], rows, columns), 0.5)
        else:
            # enlarged by exactly 2, then cropped: coarse blocks may extend beyond the image
            finer = functional.interpolate(c, scale_factor=2, mode="bilinear")
            c = finer[..., :rows, :columns]

        def normal(c: Tensor, factor: int = factor) -> Tensor:
            fit = operator.block_gram(c, factor, shape)
            return fit + per_image(weight, c) / factor**2 * laplacian(laplacian(c))

        c = cg(normal, sum_blocks(data, factor), c, iterations, flat=flat)
    return c
