"""Self-ensemble over flips and quarter turns, for the posterior mean given by a denoiser.

Each flipped or turned view of the image is denoised and turned back, and the results are averaged.
Only symmetries of the prior are used.

References:
    An Empirical Bayes Approach to Statistics, Robbins, 1956 (Tweedie's formula).
    Seven Ways to Improve Example-Based Single Image Super Resolution, Timofte et al., 2016
        (self-ensemble).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.core.pull_push import pull_push
from genprior.core.symmetries import turn, turn_back
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

# Smallest noise level that is passed to the denoiser, in image units.
MIN_NOISE_STD = 1e-4
# Order in which symmetries are added to an ensemble: the first views differ by a transposition.
# Of 28 pairs of views, those that are equal up to half a turn gain least.
ORDER = (0, 7, 4, 5, 3, 6, 2, 1)


def chosen_views(symmetries: Sequence[int], count: int) -> list[int]:
    """Returns the symmetries of an ensemble of `count` views, or all if there are fewer."""
    return [k for k in ORDER if k in symmetries][:count]


def sees_holes(prior: Denoiser, operator: Operator) -> bool:
    """Returns whether the operator is a mask with holes and the prior is an inpainter."""
    return prior.is_inpainter and operator.is_mask and not operator.is_identity


def mean_of_views(
    y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, views: Sequence[int]
) -> Tensor:
    """Returns the posterior mean of noisy images, or of images with holes.

    Arguments:
        y: Images, shape (B, C, H, W).
        operator: The identity, or a mask for which `sees_holes` is true.
        prior: Denoiser; also an inpainter if there are holes.
        noise_std: Noise levels in image units, shape (B,).
        views: Flips and quarter turns to average, see `turn`.

    Returns:
        Images, shape (B, C, H, W). Pixels that were measured without noise are unchanged.
    """
    known = operator.mask_unmeasured(torch.ones_like(y))[:, :1]
    unknown = 1 - known
    # filled in the whole image, since a tile may lie entirely inside a hole
    guess = y if operator.is_identity else pull_push(y, known)
    total = torch.zeros_like(y)
    for k in views:
        x = turn(guess, k)
        if operator.is_identity:
            x_hat = prior.denoise(x, noise_std.clamp(min=MIN_NOISE_STD))
        else:
            x_hat = prior.denoise_masked(x, noise_std, turn(unknown, k))
        total += turn_back(x_hat, k)
    exact = (known > 0) & (per_image(noise_std, y) == 0)
    return torch.where(exact, y, total / len(views))
