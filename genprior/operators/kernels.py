"""Blur kernels and weights of antialiased resampling, float64 with sum 1."""

import math

import torch
from torch import Tensor

from genprior.core.tensors import numbers


def gaussian_kernel(std: float) -> Tensor:
    """Returns a Gaussian blur kernel, truncated at 4 standard deviations or more.

    Arguments:
        std: Standard deviation in pixels, > 0.

    Returns:
        Kernel of odd size, shape (h, h).

    Raises:
        ValueError: The standard deviation is not positive and finite.

    >>> gaussian_kernel(1.6).shape
    torch.Size([15, 15])
    """
    _check_positive("the standard deviation of a Gaussian kernel", std)
    radius = math.ceil(4 * std)
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    g = torch.exp(-((t / std) ** 2) / 2)
    g = g / g.sum()
    return g[:, None] * g[None, :]


def motion_kernel(length: float, angle_degrees: float = 0.0) -> Tensor:
    """Returns a linear motion blur kernel: an antialiased line one pixel thick.

    Arguments:
        length: Length of the line in pixels, >= 1; 1 does not blur.
        angle_degrees: Direction, 0 is horizontal, counter-clockwise.

    Returns:
        Kernel of odd height and width, shape (h, w).

    Raises:
        ValueError: The length is below 1 or a number is not finite.

    >>> motion_kernel(4)
    tensor([[0.1250, 0.2500, 0.2500, 0.2500, 0.1250]], dtype=torch.float64)
    """
    if not (math.isfinite(length) and length >= 1 and math.isfinite(angle_degrees)):
        raise ValueError(
            f"a motion blur must be at least 1 pixel long and have a finite angle in degrees, "
            f"got length {length}, angle {angle_degrees}"
        )
    cosine, sine = (f(math.radians(angle_degrees)) for f in (math.cos, math.sin))
    fine = 16  # sub-pixels along each axis: the coverage of a pixel is exact to 1/32

    def points(extent: float) -> Tensor:
        radius = math.ceil(round(extent - 0.5, 9))
        return (torch.arange((2 * radius + 1) * fine, dtype=torch.float64) + 0.5) / fine - (
            radius + 0.5
        )

    y = -points((length * abs(sine) + abs(cosine)) / 2)[:, None]
    x = points((length * abs(cosine) + abs(sine)) / 2)[None, :]
    inside = ((x * cosine + y * sine).abs() <= length / 2) & (
        (y * cosine - x * sine).abs() <= 0.5
    )
    height, width = len(y) // fine, x.shape[1] // fine
    coverage = inside.reshape(height, fine, width, fine).double().mean(dim=(1, 3))
    return coverage / coverage.sum()


def disc_kernel(radius: float) -> Tensor:
    """Returns the kernel of defocus: an antialiased disc.

    Arguments:
        radius: Radius in pixels, >= 0.5; 0.5 does not blur.

    Returns:
        Kernel of odd size, shape (h, h).

    Raises:
        ValueError: The radius is below 0.5 or not finite.

    >>> disc_kernel(1.5).shape
    torch.Size([3, 3])
    """
    if not (math.isfinite(radius) and radius >= 0.5):
        raise ValueError(f"the radius of a disc must be at least 0.5 pixels, got {radius}")
    fine = 16  # sub-pixels along each axis
    margin = math.ceil(round(radius - 0.5, 9))
    t = (torch.arange((2 * margin + 1) * fine, dtype=torch.float64) + 0.5) / fine - margin - 0.5
    inside = torch.hypot(t[:, None], t[None, :]) <= radius
    side = 2 * margin + 1
    coverage = inside.reshape(side, fine, side, fine).double().mean(dim=(1, 3))
    return coverage / coverage.sum()


def check_kernel(kernel: Tensor) -> Tensor:
    """Validates a blur kernel and scales it to sum 1.

    Arguments:
        kernel: Shape (h, w), or (B, 1, h, w) for one kernel per image.

    Returns:
        Kernels that sum to 1, float64 on the CPU, shape (B or 1, 1, h, w).

    Raises:
        ValueError: The shape is wrong, a value is not finite, or the sum is 0.
    """
    k = numbers(kernel, "a blur kernel").detach().cpu().double()
    given = tuple(k.shape)
    if k.ndim == 2:
        k = k[None, None]
    if k.ndim != 4 or k.shape[1] != 1 or k.numel() == 0:
        raise ValueError(
            f"a blur kernel must have shape (height, width), or (batch, 1, height, width) for "
            f"one per image, got {given}"
        )
    if not k.isfinite().all():
        raise ValueError("a blur kernel must hold finite numbers only, got NaN or infinity")
    total = k.sum(dim=(-2, -1), keepdim=True)
    if (total.abs() <= 1e-6 * k.abs().sum(dim=(-2, -1), keepdim=True)).any():
        raise ValueError(
            "a blur kernel must not sum to 0, since it is scaled to sum to 1: pass a kernel "
            "with mostly positive values"
        )
    return k / total


def separate(kernel: Tensor) -> tuple[Tensor, Tensor] | None:
    """Splits kernels into a column times a row, if separable to float32 accuracy.

    Arguments:
        kernel: Kernels (B, 1, h, w).

    Returns:
        Columns (B, 1, h) and rows (B, 1, w), each with sum 1; None if a kernel is not separable.
    """
    U, s, Vh = torch.linalg.svd(kernel, full_matrices=False)
    column, row = U[..., 0], Vh[..., 0, :]
    sums = [part.sum(dim=-1, keepdim=True) for part in (column, row)]
    if s.shape[-1] > 1 and (s[..., 1] > 1e-6 * s[..., 0]).any():
        return None
    return column / sums[0], row / sums[1]


def resampling_weights(
    kernel: str, factor: int, std: float | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the weights of the pixels that form one low-resolution pixel, along one axis.

    Arguments:
        kernel: "bicubic" (Keys a = -0.5, stretched by the factor) or "box", both centred on
            the middle of the low-resolution pixel, f i + (f - 1) / 2 on the fine grid; or
            "gaussian", centred on the fine pixel f i.
        factor: Size f of a low-resolution pixel in fine pixels.
        std: Standard deviation of the Gaussian in fine pixels.

    Returns:
        Offsets of the pixels from f i, and their weights, both with shape (taps,).
    """
    if kernel == "gaussian":
        row = gaussian_kernel(std).sum(dim=0)
        return torch.arange(len(row)) - len(row) // 2, row
    if kernel == "box":
        return torch.arange(factor), torch.full((factor,), 1 / factor, dtype=torch.float64)
    centre = (factor - 1) / 2
    offsets = torch.arange(math.ceil(centre - 2 * factor), math.floor(centre + 2 * factor) + 1)
    weights = _keys((offsets.double() - centre).abs() / factor)
    return offsets, weights / weights.sum()


def _keys(t: Tensor) -> Tensor:
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return torch.where(t <= 1, near, torch.where(t <= 2, far, 0))


def _check_positive(what: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what} must be positive, in pixels, got {value}")
