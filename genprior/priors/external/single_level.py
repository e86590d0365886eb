"""Networks that denoise one noise level s, as denoisers at every level.

At higher levels the image is scaled around mid-grey; at lower ones the result is a weighted mean
of x, whose error is sigma^2, and D(x), which removes too much:

    sigma >= s   D(x, sigma) = c + (D(c + r (x - c)) - c) / r,   r = s / sigma,   c = 1/2
    sigma <  s   D(x, sigma) = x + w (D(x) - x)

    w = sigma^2 / (sigma^2 + (1 - sigma^2 / s^2) b^2)
    b^2 = max(mean((x - D(x))^2) - sigma^2, 0), the error of D(x)

References:
    Boosting the Performance of Plug-and-Play Priors via Denoiser Scaling, Xu et al., 2020.
    A James-Stein Type Estimator for Combining Unbiased and Possibly Biased Estimators, Green and
        Strawderman, 1991 (the weight).

Differs from the authors' code:
    1. Scaling is around mid-grey, not 0, and is not used below s: r > 1 leaves the range of the
        training images (a DnCNN for 25/255 lost 5 dB at 5/255).
    2. The factor (1 - sigma^2 / s^2) makes w = 1 at s.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
from torch import Tensor

from genprior.core.errors import CheckpointError

MID_GREY = 0.5
# A level that differs less from s, relatively, is s: it is rounded to float32.
ROUNDING = 1e-6


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """For which noise a network was trained, in FILE.genprior.json.

    `noise_level` is that of its training, in units of [0, 1]. `blind` is true for a network that
    was trained on all noise levels.
    """

    noise_level: float | None = None
    blind: bool | None = None


def check_level(path: Path, level: float | None) -> float | None:
    """Returns a noise level; raises CheckpointError if it is outside (0, 1)."""
    if level is not None and not 0 < level < 1:
        raise CheckpointError(f"{path}: noise_level must be in (0, 1), got {level}")
    return level


def denoise_any(
    removed_by: Callable[[Tensor], Tensor], u: Tensor, sigma: Tensor, s: float
) -> Tensor:
    """Denoises images at any levels with a network for one level.

    Arguments:
        removed_by: Maps images (B, C, H, W) in [0, 1] to what the network removes from them.
        u: Noisy images, (B, C, H, W).
        sigma: Their noise levels, (B, 1, 1, 1), > 0.
        s: The level of the network, > 0.
    """
    r = (s / sigma).clamp(max=1)
    removed = removed_by(MID_GREY + r * (u - MID_GREY)) / r
    b2 = (removed.square().flatten(1).mean(dim=1).reshape(sigma.shape) - sigma**2).clamp(min=0)
    share = 1 - (sigma / s) ** 2
    share = share.where(share > ROUNDING, 0)  # at s, and above
    return u - sigma**2 / (sigma**2 + share * b2) * removed
