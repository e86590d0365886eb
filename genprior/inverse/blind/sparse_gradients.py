"""Blind deconvolution with sparse gradients, from coarse to fine.

    x = argmin_x ||k * x - y||^2 + lambda ||grad x||_0
    k = argmin_k ||k * grad x - grad y||^2 + ridge ||grad x||^2 ||k||^2,    k >= 0,  sum k = 1

alternate at each scale. The image x has the strong edges of the sharp image and nothing else. With
a natural image in its place, the alternation would end at the blurred image and no blur.

References:
    Image Smoothing via L0 Gradient Minimization, Xu et al., 2011 (half-quadratic splitting).
    Deblurring Text Images via L0-Regularized Intensity and Gradient Prior, Pan et al., 2014
        (alternation, decreasing lambda).

Differs from the authors' code:
    1. The kernel is fitted under its constraints, on pixels that need no boundary rule.
    2. The image is made periodic by a linear ramp between opposite borders.
    3. There is no term for the intensities, which is for text.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import fftfreq, irfft2, rfft2, rfftfreq

from genprior.core.linalg import fast_size
from genprior.inverse.blind.kernel_fit import fit_kernel

# Ratio of the scales, and the kernel size in pixels at the coarsest.
RATIO, SMALLEST = 0.5**0.5, 5
# First and last lambda, and its decrease at each alternation; alternations at each scale.
FIRST, LAST, DECREASE, ALTERNATIONS = 4e-3, 1e-4, 1.1, 5
# Weight of the norm of the kernel, and iterations of its fit.
RIDGE, FIT_ITERATIONS = 1e-3, 20
# Values below this share of the largest are noise, as are parts below this share of the sum.
WEAK, SMALL_PART = 0.05, 0.1
# The splitting of the gradient ends at this weight, and doubles it until then.
LAST_SPLITTING = 1e3


def estimate_free_kernel(y: Tensor, size: int) -> Tensor:
    """Estimates a blur kernel of any shape.

    Arguments:
        y: Grey image in [0, 1], shape (1, 1, H, W), with sides of at least 2 `size`.
        size: Height and width of the kernel in pixels, odd, >= 3.

    Returns:
        Kernel of shape (1, 1, size, size), centred on its centre of mass.
    """
    levels = max(0, math.floor(math.log(SMALLEST / size) / math.log(RATIO))) + 1
    weight, k = FIRST, None
    for level in reversed(range(levels)):
        scale = RATIO**level
        side = _odd(size * scale)
        y_small = y if not level else F.interpolate(
            y, [round(n * scale) for n in y.shape[-2:]], mode="bilinear", antialias=True
        )
        if k is None:
            k = y.new_zeros(1, 1, side, side)
            k[..., side // 2, side // 2 - 1 : side // 2 + 1] = 0.5
        else:
            k = _enlarged(k, side)
        margin = side // 2
        edges = _gradient(y_small)[..., margin:-margin, margin:-margin]
        for _ in range(ALTERNATIONS):
            x = sparse_gradient_image(y_small, k, weight)
            k = fit_kernel(_gradient(x), edges, k, RIDGE, FIT_ITERATIONS)
            k = centred(_pruned(k))
            weight = max(weight / DECREASE, LAST)
    return k


def sparse_gradient_image(y: Tensor, kernel: Tensor, weight: float) -> Tensor:
    """Returns argmin_x ||k * x - y||^2 + weight ||grad x||_0, approximately.

    Arguments:
        y: Grey image, shape (1, 1, H, W).
        kernel: Shape (1, 1, h, w), odd sides.
        weight: lambda, > 0.
    """
    height, width = y.shape[-2:]
    h, w = kernel.shape[-2:]
    size = (fast_size(height + h), fast_size(width + w))
    periodic = _ramp(_ramp(y, size[1] - width).mT, size[0] - height).mT
    k = F.pad(kernel, (0, size[1] - w, 0, size[0] - h)).roll((-(h // 2), -(w // 2)), (-2, -1))
    K = rfft2(k)
    data, power = K.conj() * rfft2(periodic), K.abs().square()
    down = torch.exp(2j * math.pi * fftfreq(size[0]).to(y))[:, None] - 1
    right = torch.exp(2j * math.pi * rfftfreq(size[1]).to(y))[None] - 1
    laplacian = down.abs().square() + right.abs().square()
    x, splitting = periodic, 2 * weight
    while splitting < LAST_SPLITTING:
        v, h_ = x.roll(-1, -2) - x, x.roll(-1, -1) - x
        edge = v.square() + h_.square() > weight / splitting
        divergence = down.conj() * rfft2(v * edge) + right.conj() * rfft2(h_ * edge)
        x = irfft2((data + splitting * divergence) / (power + splitting * laplacian), s=size)
        splitting *= 2
    return x[..., :height, :width]


def centred(kernel: Tensor) -> Tensor:
    """Returns a kernel, shape (1, 1, h, w), shifted by whole pixels to its centre of mass."""
    shifts = []
    for axis in (-2, -1):
        n = kernel.shape[axis]
        profile = kernel.sum(dim=-1 if axis == -2 else -2).flatten()
        centre = (profile * torch.arange(n).to(profile)).sum() / profile.sum()
        shifts.append(n // 2 - round(centre.item()))
    down, right = shifts
    h, w = kernel.shape[-2:]
    padded = F.pad(kernel, (abs(right), abs(right), abs(down), abs(down)))
    moved = padded.roll((down, right), (-2, -1))
    k = moved[..., abs(down) : abs(down) + h, abs(right) : abs(right) + w]
    return k / k.sum()


def _gradient(x: Tensor) -> Tensor:
    """Returns the derivatives to the right and down, shape (2, 1, H - 1, W - 1)."""
    inner = x[..., 1:, 1:]
    return torch.cat([inner - x[..., 1:, :-1], inner - x[..., :-1, 1:]])


def _pruned(kernel: Tensor) -> Tensor:
    from scipy.ndimage import label  # slow to import

    k = torch.where(kernel < WEAK * kernel.max(), 0, kernel)
    parts, count = label((k[0, 0] > 0).cpu().numpy(), structure=[[1] * 3] * 3)
    parts = torch.from_numpy(parts).to(k.device)
    masses = [k[0, 0][parts == i].sum() for i in range(1, count + 1)]
    kept = [i + 1 for i, mass in enumerate(masses) if mass >= SMALL_PART or mass == max(masses)]
    k = k * torch.isin(parts, torch.tensor(kept).to(parts))
    return k / k.sum()


def _enlarged(kernel: Tensor, side: int) -> Tensor:
    """Returns a kernel at the next scale, cropped or padded to a side."""
    n = _odd(kernel.shape[-1] / RATIO)
    k = F.interpolate(kernel, (n, n), mode="bicubic").clamp(min=0)
    margin = (side - n) // 2
    k = F.pad(k, (margin, margin, margin, margin))
    return k / k.sum()


def _ramp(y: Tensor, n: int) -> Tensor:
    """Appends n columns that lead from the last column to the first."""
    t = (torch.arange(n).to(y) + 1) / (n + 1)
    return torch.cat([y, y[..., -1:] * (1 - t) + y[..., :1] * t], dim=-1)


def _odd(n: float) -> int:
    return round(n) + 1 - round(n) % 2
