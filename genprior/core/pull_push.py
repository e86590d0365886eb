"""Pull-push interpolation: unknown pixels filled from known ones nearby, on an image pyramid.

Each level holds the mean of the known pixels nearby. Where they are few, the next coarser level
is blended in.

References:
    The Lumigraph, Gortler et al., 1996 (pull-push).
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

ENOUGH = 0.1  # density of known pixels above which no coarser level is blended in


def pull_push(x: Tensor, known: Tensor) -> Tensor:
    """Returns images with the unknown pixels filled.

    Arguments:
        x: Images, shape (B, C, H, W); values of unknown pixels are ignored.
        known: 1 where a pixel is known, else 0; shape (B, 1, H, W).

    Returns:
        The images, with the known pixels unchanged; 0 everywhere if no pixel of an image is known.
    """
    return torch.where(known > 0, x, _fill(torch.where(known > 0, x, 0), known))


def density(known: Tensor) -> Tensor:
    """Returns the weighted share of known pixels in each 3x3 neighbourhood, (B, 1, H, W)."""
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
    """Applies a binomial 3x3 filter with zeros beyond the border."""
    for axis, border in ((-1, (1, 1, 0, 0)), (-2, (0, 0, 1, 1))):
        wide, n = pad(x, border), x.shape[axis]
        before, here, after = (wide.narrow(axis, k, n) for k in range(3))
        x = before / 4 + here / 2 + after / 4
    return x
