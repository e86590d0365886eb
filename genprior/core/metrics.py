"""How close an image, or a set of samples, is to a reference; one value per image."""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from genprior.core.random_streams import partners

WINDOW = 7


def psnr(x: Tensor, reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, `10 log10(data_range^2 / MSE)`, of each image.

    The mean squared error is over channels and pixels; there is no cap.

    Arguments:
        x: Images (B, C, H, W).
        reference: The true images, of the same shape.
        data_range: Largest possible value less the smallest.

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
    """Structural similarity of each image, as scikit-image defines it by default.

    Wang et al. 2004 with a uniform 7 x 7 window, sample covariances, K1 = 0.01 and K2 = 0.03,
    averaged over the windows inside the image and over channels. (The 11 x 11 Gaussian window
    of the paper gives other values, by 0.02 or so.)

    Arguments:
        x: Images (B, C, H, W).
        reference: The true images, of the same shape.
        data_range: Largest possible value less the smallest.

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
    """Which of K sorted samples bound an interval, and how often it should hold the truth.

    The truth and K samples of its exact posterior are exchangeable, so that it lies between the
    a-th smallest and the a-th largest with probability (K + 1 - 2 a) / (K + 1).

    Arguments:
        samples: Number K of samples, >= 2.
        level: The wanted probability.

    Returns:
        a, and the probability: the smallest one that is at least `level`, or else the largest.

    >>> central_interval(19), central_interval(4)
    ((1, 0.9), (1, 0.6))
    """
    a = max(1, int((samples + 1) * (1 - level) / 2 + 1e-9))
    return a, (samples + 1 - 2 * a) / (samples + 1)


def coverage(samples: Tensor, reference: Tensor, level: float = 0.9) -> Tensor:
    """Share of the pixels whose true value lies in the central interval of the samples.

    Pixels at which all samples agree, the known ones of an inpainting, do not count.

    Arguments:
        samples: Shape (B, K, C, H, W), K >= 2.
        reference: The true images, (B, C, H, W).
        level: The wanted probability; what can be had of K samples is `central_interval`.

    Returns:
        (B,); NaN for an image at which all samples agree everywhere.
    """
    a, _ = central_interval(samples.shape[1], level)
    shares = []
    for drawn, truth in zip(samples, reference, strict=True):  # which takes less memory
        ordered = drawn.sort(dim=0).values
        counted = ordered[0] < ordered[-1]
        inside = counted & (ordered[a - 1] <= truth) & (truth <= ordered[-a])
        shares.append(inside.sum() / counted.sum())
    return torch.stack(shares)


def crps(samples: Tensor, reference: Tensor, antithetic: bool = False) -> Tensor:
    """Continuous ranked probability score, mean over the pixels; 0 is best.

    E|X - x| - E|X - X'| / 2 for X, X' of the samples, with the unbiased second term (Gneiting
    and Raftery, 2007; Zamo and Naveau, 2018). For one answer it would be the absolute error.

    Arguments:
        samples: Shape (B, K, C, H, W), K >= 2.
        reference: The true images, (B, C, H, W).
        antithetic: Samples that are partners depend on each other, and are not compared.

    Returns:
        (B,), in image units.
    """
    count = samples.shape[1]
    pairs, dependent = count * (count - 1) // 2, partners(count) if antithetic else []
    scores, dtype = [], _widest(samples)
    for drawn, truth in zip(samples, reference.to(dtype), strict=True):  # which takes less memory
        ordered = drawn.sort(dim=0).values.to(dtype)  # and float32 is sorted faster
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
            "images to compare must have one shape (B, C, H, W), "
            f"got {list(x.shape)} and {list(reference.shape)}"
        )
    dtype = _widest(x)  # as variances are differences of large numbers
    return x.to(dtype), reference.to(dtype)


def _widest(x: Tensor) -> torch.dtype:
    """float64, which Apple's GPUs have not."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _window_mean(x: Tensor) -> Tensor:
    return avg_pool2d(x, WINDOW, stride=1)


def finite(value: Tensor) -> float | None:
    """A number as JSON can hold it: None if it is infinite or NaN."""
    return value.item() if math.isfinite(value.item()) else None
