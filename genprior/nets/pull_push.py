"""Fills the unknown pixels of an image from the known ones around them, on a pyramid.

Every level has the mean of the known pixels nearby; where there are few, the next coarser one
is mixed in.

References:
    The Lumigraph, Gortler et al., 1996 (pull-push).
"""

from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

ENOUGH = 0.1
TINY = 1e-6


def pull_push(x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Images without holes, and how dense the known pixels are.

    Arguments:
        x: Images, shape (B, C, H, W); what unknown pixels hold does not matter.
        known: 1 where a pixel is known, else 0; shape (B, 1, H, W).

    Returns:
        The images, the known pixels unchanged, shape (B, C, H, W); 0.5 where no pixel of an
        image is known. The share of known pixels around each, in [0, 1], shape (B, 1, H, W).
    """
    given = x.where(known > 0, 0)
    filled, density = _fill(given, known, 0.5)
    return given.where(known > 0, filled), density


def _fill(given: Tensor, weight: Tensor, otherwise: float) -> tuple[Tensor, Tensor]:
    height, width = weight.shape[-2:]
    around = _blur(weight)
    mean = _blur(given) / around.clamp(min=TINY)
    if max(height, width) == 1:
        return mean.where(around > 0, otherwise), around
    even = (0, width % 2, 0, height % 2)
    coarse, _ = _fill(
        avg_pool2d(pad(given, even), 2), avg_pool2d(pad(weight, even), 2), otherwise
    )
    coarse = interpolate(coarse, scale_factor=2, mode="bilinear")[..., :height, :width]
    return coarse.lerp(mean, (around / ENOUGH).clamp(max=1)), around


def _blur(x: Tensor) -> Tensor:
    """Binomial 3x3 filter; beyond the border there is nothing."""
    for axis in ((1, 1, 0, 0), (0, 0, 1, 1)):
        wide = pad(x, axis)
        if axis[0]:
            x = wide[..., :-2] / 4 + wide[..., 1:-1] / 2 + wide[..., 2:] / 4
        else:
            x = wide[..., :-2, :] / 4 + wide[..., 1:-1, :] / 2 + wide[..., 2:, :] / 4
    return x
