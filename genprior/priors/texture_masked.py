"""Texton of an image with scattered missing pixels, from unbiased autocovariances.

Filling missing pixels with the mean reduces the covariance at every lag but 0: it is halved if
half of the pixels are missing at random. The sum over pairs of known pixels at each lag is
therefore divided by the number of pairs:

    R(h) = sum_x u(x) u(x + h) / #{x: x and x + h known}

R need not be a valid covariance: its spectrum R^ may be negative. The nearest non-negative
spectrum with the variance of the known pixels is S = max(R^ - tau, 0). The texton is scaled to
this spectrum at every frequency.

In colour R and S are sums over the channels, and all channels are scaled by the same factor at
a frequency, so that their covariance keeps rank one. The variances of single channels then
deviate slightly, and each channel is finally scaled to its own variance.

References:
    Efficient Projections onto the l1-Ball for Learning in High Dimensions, Duchi,
    Shalev-Shwartz, Singer and Chandra, 2008 (projection onto a simplex).
"""

import torch
from torch import Tensor
from torch.fft import fft2, ifft2

# Minimum number of pairs at a lag, relative to the mean over lags, for the division.
FEWEST_PAIRS = 0.05
# Missing pixels are scattered if fewer neighbours of known pixels than this share are known.
SCATTERED = 0.9


def texton_of_known(u: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the texton of the known part of an image, and its mean colour (C,).

    Arguments:
        u: Image, shape (C, H, W); unknown pixels may have any value, including NaN.
        keep: Whether a pixel is known, bool, shape (H, W).

    Raises:
        ValueError: There is no known pixel, or too few known pixels with known neighbours.
    """
    known = keep.to(u)
    count = known.sum()
    if count == 0:
        raise ValueError("the exemplar has no known pixel: nothing to estimate from")
    u = torch.where(keep, u, 0)
    mean = u.sum(dim=(1, 2)) / count
    texton = known * (u - mean[:, None, None]) / count.sqrt()
    pairs = known_pairs(known)
    return (unbiased_texton(texton, pairs) if is_scattered(pairs) else texton), mean


def known_pairs(known: Tensor) -> Tensor:
    """Returns the share of known pixels with a known pixel at each lag; (H, W), periodic."""
    pairs = ifft2(fft2(known).abs().square()).real
    return pairs / known.sum()


def is_scattered(pairs: Tensor) -> bool:
    """Returns whether over 10 % of the lower or right neighbours of known pixels are missing."""
    return bool((_neighbours(pairs) < SCATTERED).any())


def unbiased_texton(texton: Tensor, pairs: Tensor) -> Tensor:
    """Corrects a texton for missing pixels at every lag that has enough pairs of known pixels.

    Arguments:
        texton: Known pixels minus their mean, divided by the square root of their number; 0
            at missing pixels; shape (C, H, W).
        pairs: Output of `known_pairs`.

    Raises:
        ValueError: Too few known pixels have known neighbours, for example in a grid mask.
    """
    by_chance = pairs.mean()
    enough = pairs >= FEWEST_PAIRS * by_chance
    if not _neighbours(enough).all():
        raise ValueError(
            "too few known pixels of the exemplar have a known neighbour below or beside them, "
            "so the texture cannot be estimated: give another exemplar"
        )
    t = fft2(texton)
    power = t.abs().square().sum(dim=0)
    R = ifft2(power).real
    R = torch.where(enough, R / torch.where(enough, pairs, 1), R)
    S = nearest_spectrum(fft2(R).real, power.sum())
    scaled = ifft2(t * (S / torch.where(power > 0, power, 1)).sqrt()).real
    before, after = (v.square().sum(dim=(1, 2), keepdim=True) for v in (texton, scaled))
    return scaled * (before / torch.where(after > 0, after, 1)).sqrt()


def nearest_spectrum(spectrum: Tensor, total: Tensor) -> Tensor:
    """Projects a spectrum onto non-negative ones with a given sum: max(spectrum - tau, 0)."""
    ordered = spectrum.flatten().sort(descending=True).values
    excess = ordered.cumsum(0) - total
    count = torch.arange(1, len(ordered) + 1, device=spectrum.device)
    last = (ordered * count > excess).sum() - 1
    return (spectrum - excess[last] / count[last]).clamp(min=0)


def _neighbours(lags: Tensor) -> Tensor:
    height, width = lags.shape
    return torch.stack([lags[1 % height, 0], lags[0, 1 % width]])
