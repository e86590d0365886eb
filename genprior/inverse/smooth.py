"""The smoothest image that explains a measurement: where iterative solvers start.

    argmin_x ||A x - y||^2 + weight ||grad x||^2

References:
    Solutions of Ill-Posed Problems, Tikhonov and Arsenin, 1977.
"""

import torch
from torch import Tensor

from genprior.linalg import cg
from genprior.operators.base import Operator

WEIGHT = 1e-3


def laplacian(x: Tensor) -> Tensor:
    """Grid Laplacian -div grad of images (B, C, H, W), mirrored at the border; positive."""
    out = torch.zeros_like(x)
    for axis in (-2, -1):
        step = x.diff(dim=axis)
        size = step.shape[axis]
        out.narrow(axis, 0, size).sub_(step)
        out.narrow(axis, 1, size).add_(step)
    return out


def smooth_start(y: Tensor, operator: Operator, iterations: int = 200) -> Tensor:
    """Tikhonov solution of any operator, by conjugate gradient from mid-grey.

    Arguments:
        y: Measurements.
        operator: How they were made.
        iterations: Number of iterations.

    Returns:
        Images, shape (B, C, H, W).
    """
    start = torch.full(operator.image_shape(y.shape), 0.5, dtype=y.dtype, device=y.device)

    def normal(x: Tensor) -> Tensor:
        return operator.A_adjoint(operator.A(x)) + WEIGHT * laplacian(x)

    return cg(normal, operator.A_adjoint(y), start, iterations, tolerance=1e-3)
