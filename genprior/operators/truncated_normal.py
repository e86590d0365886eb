"""Mean of a truncated normal law: a number that is known up to rounding.

    E[u | low <= u <= high],   u ~ N(mean, spread^2)
"""

import math

import torch
from torch import Tensor


def truncated_mean(
    mean: Tensor, spread: Tensor, low: Tensor, high: Tensor, smallest: float
) -> Tensor:
    """Returns E[u | low <= u <= high] for u ~ N(mean, spread^2).

    Arguments:
        mean: Means, any shape.
        spread: Standard deviation >= 0.
        low, high: Ends of the intervals, low <= high; finite.
        smallest: Spreads below, > 0, count as 0: the result is the projection onto the interval.
    """
    scale, tiny = spread.clamp(min=smallest), torch.finfo(mean.dtype).tiny
    a, b = (low - mean) / scale, (high - mean) / scale
    # Mirrored so that the interval lies on the positive side, where erfcx does not cancel.
    side = torch.where(a + b < 0, -1.0, 1.0).to(a)
    a, b = torch.where(side > 0, a, -b), torch.where(side > 0, b, -a)
    root = 0.5**0.5
    exponent = -0.5 * (b - a) * (b + a)
    beyond = -torch.expm1(exponent) / (
        torch.special.erfcx(a.clamp(min=0) * root)
        - torch.exp(exponent) * torch.special.erfcx(b * root)
    ).clamp(min=tiny)
    around = (torch.exp(-0.5 * a * a) - torch.exp(-0.5 * b * b)) / (
        torch.erf(b * root) - torch.erf(a * root)
    ).clamp(min=tiny)
    shift = side * math.sqrt(2 / math.pi) * torch.where(a > 0, beyond, around)
    inside = torch.where(spread > smallest, mean + scale * shift, mean)
    return inside.maximum(low).minimum(high)
