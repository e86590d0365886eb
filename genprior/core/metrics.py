"""Image quality metrics (PSNR, SSIM) and scores of samples (coverage, CRPS), one per image."""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from genprior.core.random_streams import partners

WINDOW = 7


def psnr(x: Tensor, reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Returns the peak signal-to-noise ratio of each image, `10 log10(data_range^2 / MSE)` in dB.

    The mean squared error (MSE) is over channels and pixels. Values are not capped.

    Arguments:
        x: Images (B, C, H, W).
        reference: Reference images, of the same shape.
        data_range: Largest possible value minus the smallest.

    Returns:
        (B,); infinite for an image equal to its reference.

    Raises:
        ValueError: The shapes differ or are not (B, C, H, W).

    >>> psnr(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.1))
    tensor([20.])
    """
    x_, reference_ = _pair(x, reference)
    mse = (x_ - reference_).square().mean((1, 2, 3))
    return (10 * torch.log10(data_range**2 / mse)).to(x.dtype)


def ssim(x: Tensor, reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Returns the structural similarity (SSIM) of each image, with the defaults of scikit-image.

    Wang et al. 2004 with a uniform 7 x 7 window, sample covariances, K1 = 0.01 and K2 = 0.03,
    averaged over the windows inside the image and over channels. (The 11 x 11 Gaussian window
    of the paper gives other values, by 0.02 or so.)

    Arguments:
        x: Images (B, C, H, W).
        reference: Reference images, of the same shape.
        data_range: Largest possible value minus the smallest.

    Returns:
        (B,), 1 for an image equal to its reference.

    Raises:
        ValueError: The shapes differ, are not (B, C, H, W), or a side is below 7 pixels.
    """
    x_, y = _pair(x, reference)
    if min(x.shape[2:]) < WINDOW:
        raise ValueError(
            f"SSIM compares windows of {WINDOW} x {WINDOW} pixels: images of "
            f"{x.shape[3]} x {x.shape[2]} are too small, use psnr"
        )
    mean_x, mean_y = _window_mean(x_), _window_mean(y)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    var_x = sample * (_window_mean(x_ * x_) - mean_x * mean_x)
    var_y = sample * (_window_mean(y * y) - mean_y * mean_y)
    cov = sample * (_window_mean(x_ * y) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean((1, 2, 3)).to(x.dtype)


def central_interval(samples: int, level: float = 0.9) -> tuple[int, float]:
    """Returns which of K sorted samples bound a central interval, and its expected coverage.

    The reference and K samples of its exact posterior are exchangeable. So the reference lies
    between the a-th smallest and the a-th largest with probability (K + 1 - 2 a) / (K + 1).

    Arguments:
        samples: Number K of samples, >= 2.
        level: Wanted coverage.

    Returns:
        a, and the coverage: the smallest possible one >= `level`, or the largest one if none is.

    >>> central_interval(19), central_interval(4)
    ((1, 0.9), (1, 0.6))
    """
    a = max(1, int((samples + 1) * (1 - level) / 2 + 1e-9))
    return a, (samples + 1 - 2 * a) / (samples + 1)


def coverage(samples: Tensor, reference: Tensor, level: float = 0.9) -> Tensor:
    """Returns the share of pixels whose reference value lies in the central interval of samples.

    Pixels at which all samples are equal, as the known pixels of inpainting, are not counted.

    Arguments:
        samples: Shape (B, K, C, H, W), K >= 2.
        reference: Reference images, (B, C, H, W).
        level: Wanted coverage; `central_interval` gives the one that K samples allow.

    Returns:
        (B,); NaN for an image whose samples are equal at all pixels.
    """
    a, _ = central_interval(samples.shape[1], level)
    shares = []
    for drawn, truth in zip(samples, reference, strict=True):  # one by one: less memory
        ordered = drawn.sort(dim=0).values
        counted = ordered[0] < ordered[-1]
        inside = counted & (ordered[a - 1] <= truth) & (truth <= ordered[-a])
        shares.append(inside.sum() / counted.sum())
    return torch.stack(shares)


def crps(samples: Tensor, reference: Tensor, antithetic: bool = False) -> Tensor:
    """Returns the continuous ranked probability score (CRPS), mean over the pixels; 0 is best.

    E|X - x| - E|X - X'| / 2 for X, X' of the samples, with the unbiased second term (Gneiting
    and Raftery, 2007; Zamo and Naveau, 2018). The CRPS of a point estimate is the absolute error.

    Arguments:
        samples: Shape (B, K, C, H, W), K >= 2.
        reference: Reference images, (B, C, H, W).
        antithetic: Whether the samples are antithetic: the dependent pairs that `partners` lists
            are then left out of the second term.

    Returns:
        (B,), in image units.
    """
    count = samples.shape[1]
    pairs, dependent = count * (count - 1) // 2, partners(count) if antithetic else []
    scores, dtype = [], _widest_float(samples)
    for drawn, truth in zip(samples, reference.to(dtype), strict=True):  # one by one: less memory
        ordered = drawn.sort(dim=0).values.to(dtype)  # sorting float32 is faster
        error = (ordered - truth).abs().mean(dim=0)
        # sum over pairs of |X_i - X_j| = sum of (2 i - K + 1) X_(i)
        rank = 2 * torch.arange(count).to(ordered) - count + 1
        distances = torch.tensordot(rank, ordered, dims=1)
        for a, b in dependent:
            distances = distances - (drawn[a].to(dtype) - drawn[b].to(dtype)).abs()
        scores.append((error - distances / (2 * (pairs - len(dependent)))).mean())
    return torch.stack(scores).to(samples.dtype)


def _pair(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != reference.shape or x.ndim != 4:
        raise ValueError(
            "images to compare must have the same shape (B, C, H, W), "
            f"got {list(x.shape)} and {list(reference.shape)}"
        )
    dtype = _widest_float(x)  # variances are differences of large numbers
    return x.to(dtype), reference.to(dtype)


def _widest_float(x: Tensor) -> torch.dtype:
    """Returns float64, or float32 on Apple GPUs, which lack float64."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _window_mean(x: Tensor) -> Tensor:
    return avg_pool2d(x, WINDOW, stride=1)


def finite(value: Tensor) -> float | None:
    """Returns a number for JSON: None if it is infinite or NaN."""
    return value.item() if math.isfinite(value.item()) else None
