"""Guesses the unknown pixels of an image from the known ones around them, on a pyramid.

Every level has the mean of the known pixels nearby; where there are few, the next coarser one
is mixed in.

References:
    The Lumigraph, Gortler et al., 1996 (pull-push).
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

ENOUGH = 0.1


def pull_push(x: Tensor, known: Tensor) -> Tensor:
    """Images without holes.

    Arguments:
        x: Images, shape (B, C, H, W); what unknown pixels hold does not matter.
        known: 1 where a pixel is known, else 0; shape (B, 1, H, W).

    Returns:
        The images, with the known pixels unchanged; 0 where no pixel of an image is known.
    """
    return torch.where(known > 0, x, _fill(torch.where(known > 0, x, 0), known))


def density(known: Tensor) -> Tensor:
    """The share of known pixels around each, in [0, 1], of the shape of `known`."""
    return _blur(known)


def _fill(given: Tensor, weight: Tensor) -> Tensor:
    height, width = weight.shape[-2:]
    around = _blur(weight)
    mean = _blur(given) / torch.where(around > 0, around, 1)
    if max(height, width) == 1:
        return mean
    even = (0, width % 2, 0, height % 2)
    coarse = _fill(avg_pool2d(pad(given, even), 2), avg_pool2d(pad(weight, even), 2))
    coarse = interpolate(coarse, scale_factor=2, mode="bilinear")[..., :height, :width]
    return coarse.lerp(mean, (around / ENOUGH).clamp(max=1))


def _blur(x: Tensor) -> Tensor:
    """Binomial 3x3 filter; beyond the border there is nothing."""
    for axis, border in ((-1, (1, 1, 0, 0)), (-2, (0, 0, 1, 1))):
        wide, n = pad(x, border), x.shape[axis]
        before, here, after = (wide.narrow(axis, k, n) for k in range(3))
        x = before / 4 + here / 2 + after / 4
    return x
