"""Multi-scale denoising: a denoiser of white noise for images with correlated noise.

    x_K = D(y_K, sigma_K),    y_k = y reduced by the factor 2^k
    x_k = D(y_k + U(x_{k+1} - y_{k+1}), sigma_k)

Averages of 2 x 2 pixels decorrelate noise whose correlation is short, so that at the coarsest
scale it is nearly white. U enlarges by the factor 2 (bicubic): a finer scale denoises an image
whose low frequencies are denoised already, and sigma_k is the level of the noise that is left. The
levels are those of simulated noise of the same law, times a factor that was tuned on simulated
camera noise.

References:
    Multiscale Image Blind Denoising, Lebrun, Colom and Morel, 2015.
    Conservative Scale Recomposition for Multiscale Denoising, Facciolo, Pierazzo and Morel, 2017.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from genprior.core.symmetries import turn, turn_back
from genprior.inverse.self_ensemble import MIN_NOISE_STD
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

# Noise levels of the denoiser relative to those of the noise, from the finest scale on.
FACTORS = (1.4, 1.4, 1.4)
# Smallest side in pixels of the image at the coarsest scale.
SMALLEST = 16
# Side of the simulated noise, if its law is the same at every pixel.
SIDE = 128


def multi_scale_mean(
    y: Tensor, operator: Operator, prior: Denoiser, views: Sequence[int]
) -> Tensor:
    """Returns an approximate posterior mean of images with correlated noise.

    Arguments:
        y: Measurement whose operator `is_noisy_image`.
        operator: Its operator.
        prior: Denoiser of white noise.
        views: Numbers of the flips and quarter turns to average.

    Returns:
        Images, shape (B, C, H, W).
    """
    y = operator.noisy_image(y)
    side = min(y.shape[-2:])
    scales = max(k for k in range(1, len(FACTORS) + 1) if k == 1 or side >> (k - 1) >= SMALLEST)
    levels = [f * s for f, s in zip(FACTORS, _levels(operator, y, scales), strict=False)]
    total = torch.zeros_like(y)
    for k in views:
        total += turn_back(_denoise(turn(y, k), levels, prior), k)
    return total / len(views)


def _denoise(y: Tensor, levels: list[Tensor], prior: Denoiser) -> Tensor:
    if len(levels) > 1:
        small = reduced(y)
        y = y + enlarged(_denoise(small, levels[1:], prior) - small, y)
    return prior.denoise(y, levels[0].clamp(min=MIN_NOISE_STD))


def _levels(operator: Operator, y: Tensor, scales: int) -> list[Tensor]:
    """Returns the noise levels that are left at each scale, from the finest on, each (B,)."""
    sides = (SIDE, SIDE) if operator.has_stationary_noise else y.shape[-2:]
    shape = (1, y.shape[1], *sides)
    white = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(y)
    n = operator.colour_noise(white.expand(len(y), -1, -1, -1))
    levels = []
    for _ in range(scales - 1):
        small = reduced(n)
        levels.append((n - enlarged(small, n)).flatten(1).std(dim=1))
        n = small
    return [*levels, n.flatten(1).std(dim=1)]


def reduced(x: Tensor) -> Tensor:
    """Returns images reduced by the factor 2; an odd side repeats its last pixels."""
    height, width = x.shape[-2:]
    return avg_pool2d(pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Returns images enlarged by the factor 2, cropped to the size of `like`."""
    return interpolate(x, scale_factor=2, mode="bicubic")[..., : like.shape[-2], : like.shape[-1]]
