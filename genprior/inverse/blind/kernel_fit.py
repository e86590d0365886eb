"""Least squares for a blur kernel, given sharp images and their blurred measurements.

    min_k ||k * x - y||^2 + ridge ||x||^2 ||k||^2,    k >= 0,  sum k = 1

by accelerated projected gradient with restarts. Only pixels of y whose neighbourhood lies inside x
are used ("valid" convolution), so that the fit is exact for exact data.

References:
    Fast Motion Deblurring, Cho and Lee, 2009 (least squares in the Fourier domain).
    Efficient Projections onto the l1-Ball for Learning in High Dimensions, Duchi et al., 2008.
    Adaptive Restart for Accelerated Gradient Schemes, O'Donoghue and Candes, 2015.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft2, rfft2

from genprior.core.linalg import fast_shape

# Power iterations for the step size, and the margin for their error.
POWER_ITERATIONS, MARGIN = 10, 1.05


def fit_kernel(
    x: Tensor,
    y: Tensor,
    start: Tensor | None = None,
    ridge: float = 0.0,
    iterations: int = 60,
) -> Tensor:
    """Returns the kernel of least squares, non-negative with sum 1.

    Arguments:
        x: Sharp images or their derivatives, shape (N, 1, H, W).
        y: Their valid convolution with the kernel, shape (N, 1, H - h + 1, W - w + 1), plus noise.
        start: First iterate, shape (1, 1, h, w); None for the constant kernel.
        ridge: Weight of the squared norm, relative to the energy of x, >= 0.
        iterations: Number of iterations.

    Returns:
        Kernel of shape (1, 1, h, w), whose size follows from those of x and y.

    Raises:
        ValueError: y is larger than x.
    """
    h, w = (a - b + 1 for a, b in zip(x.shape[-2:], y.shape[-2:], strict=True))
    if h < 1 or w < 1:
        raise ValueError(
            f"y must not be larger than x, since it is a valid convolution of x: got "
            f"{tuple(y.shape)} for {tuple(x.shape)}"
        )
    size = fast_shape(x.shape)
    X = rfft2(x, s=size)

    def blurred(k: Tensor) -> Tensor:
        return irfft2(X * rfft2(k, s=size), s=size)[..., h - 1 : x.shape[-2], w - 1 : x.shape[-1]]

    def adjoint(r: Tensor) -> Tensor:
        R = rfft2(F.pad(r, (w - 1, 0, h - 1, 0)), s=size)
        return irfft2((X.conj() * R).sum(dim=0, keepdim=True), s=size)[..., :h, :w]

    weight = ridge * x.square().sum()
    data = adjoint(y)
    k = x.new_full((1, 1, h, w), 1 / (h * w)) if start is None else start
    step = 1 / (_largest_eigenvalue(lambda v: adjoint(blurred(v)), k) + weight)
    step = torch.where(step.isfinite(), step, 0)  # constant images say nothing about k
    ahead, momentum = k, 1.0
    for _ in range(iterations):
        gradient = adjoint(blurred(ahead)) - data + weight * ahead
        k_next = project_to_simplex(ahead - step * gradient)
        if ((ahead - k_next) * (k_next - k)).sum() > 0:
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = k_next + (momentum - 1) / following * (k_next - k)
        k, momentum = k_next, following
    return k


def project_to_simplex(v: Tensor) -> Tensor:
    """Returns the nearest non-negative tensor with sum 1.

    >>> project_to_simplex(torch.tensor([0.5, 0.7, -1.0]))
    tensor([0.4000, 0.6000, 0.0000])
    """
    u = v.flatten().sort(descending=True).values
    excess = (u.cumsum(0) - 1) / torch.arange(1, len(u) + 1).to(u)
    return (v - excess[(u > excess).sum() - 1]).clamp(min=0)


def _largest_eigenvalue(matrix: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    v = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
    for _ in range(POWER_ITERATIONS):
        v = matrix(v / v.norm().clamp(min=1e-30))
    return MARGIN * v.norm()
