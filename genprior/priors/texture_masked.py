"""The texton of a picture of which single pixels are missing, all over.

Filled with the mean, missing pixels take away from every covariance but the variance: with a
half of them missing at random, a half of it. Per lag, the sum over pairs of known pixels is
divided by the number of pairs:

    R(h) = sum_x u(x) u(x + h) / #{x: x and x + h known}

R need not be a covariance. The nearest spectrum that is one and has the variance of the known
pixels is S = max(R^ - tau, 0), and the frequencies of the texton are scaled to it.

In colour R and S are sums over the channels, and all channels of a frequency are scaled alike,
so that their covariance stays of rank one. Their shares of it stay as observed, which leaves
the variance of a channel a little off: at last, each is scaled to its own.

References:
    Efficient Projections onto the l1-Ball for Learning in High Dimensions, Duchi,
    Shalev-Shwartz, Singer and Chandra, 2008 (the nearest point of a simplex).
"""

import torch
from torch import Tensor
from torch.fft import fft2, ifft2

# Below, pairs at a lag are too few, compared with chance, to be divided by.
FEWEST_PAIRS = 0.05
SCATTERED = 0.9


def texton_of_known(u: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The texton of the known part of a picture, and its mean colour (C,).

    Arguments:
        u: Picture, shape (C, H, W); its unknown part may hold anything, NaN included.
        keep: Where it is known, bool, shape (H, W).

    Raises:
        ValueError: There is no known pixel, or hardly one whose neighbours are known too.
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
    """For each lag, which share of the known pixels has a known one there; (H, W), periodic."""
    pairs = ifft2(fft2(known).abs().square()).real
    return pairs / known.sum()


def is_scattered(pairs: Tensor) -> bool:
    """Whether more than one neighbour in ten of a known pixel is missing."""
    return bool((_neighbours(pairs) < SCATTERED).any())


def unbiased_texton(texton: Tensor, pairs: Tensor) -> Tensor:
    """A texton with the covariance of its known pixels, at every lag that has enough pairs.

    Arguments:
        texton: Known pixels minus their mean over the root of their number, 0 elsewhere,
            shape (C, H, W).
        pairs: Of `known_pairs`.

    Raises:
        ValueError: Neighbours of known pixels are not known, as in a mask that is a grid.
    """
    by_chance = pairs.mean()
    enough = pairs >= FEWEST_PAIRS * by_chance
    if not _neighbours(enough).all():
        raise ValueError(
            "hardly a known pixel of the exemplar has a known neighbour below or beside it, "
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
    """The spectrum max(spectrum - tau, 0) of a given sum: no other of that sum is nearer."""
    ordered = spectrum.flatten().sort(descending=True).values
    excess = ordered.cumsum(0) - total
    count = torch.arange(1, len(ordered) + 1, device=spectrum.device)
    last = (ordered * count > excess).sum() - 1
    return (spectrum - excess[last] / count[last]).clamp(min=0)


def _neighbours(lags: Tensor) -> Tensor:
    height, width = lags.shape
    return torch.stack([lags[1 % height, 0], lags[0, 1 % width]])
