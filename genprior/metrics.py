"""How close an image is to a reference: PSNR and SSIM, one value per image."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

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


def _pair(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != reference.shape or x.ndim != 4:
        raise ValueError(
            "images to compare must have one shape (B, C, H, W), "
            f"got {list(x.shape)} and {list(reference.shape)}"
        )
    # Variances are differences of large numbers; Apple's GPUs have no float64.
    dtype = torch.float32 if x.device.type == "mps" else torch.float64
    return x.to(dtype), reference.to(dtype)


def _window_mean(x: Tensor) -> Tensor:
    return avg_pool2d(x, WINDOW, stride=1)
