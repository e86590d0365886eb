"""The posterior mean as a denoiser knows it, averaged over its symmetries.

References:
    An Empirical Bayes Approach to Statistics, Robbins, 1956 (Tweedie's formula).
    Seven Ways to Improve Example-Based Single Image Super Resolution, Timofte et al., 2016
        (self-ensemble).
"""

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.core.pull_push import pull_push
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

LEAST = 1e-4


def sees_holes(prior: Denoiser, operator: Operator) -> bool:
    """Whether a measurement is an image with holes of which the prior knows."""
    return prior.is_inpainter and operator.is_mask and not operator.is_identity


def mean_of_views(
    y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, turns: int
) -> Tensor:
    """The posterior mean of noisy images, or of those with holes.

    Arguments:
        y: Images, shape (B, C, H, W).
        operator: The identity, or one with holes that the prior `sees_holes` of.
        prior: The prior.
        noise_std: Noise levels, shape (B,).
        turns: Number of flips and quarter turns that are averaged, if the prior has so many
            symmetries.
    """
    known = operator.mask_unmeasured(torch.ones_like(y))[:, :1]
    unknown = 1 - known
    # of the whole image, since a tile of it may be nothing but a hole
    guess = y if operator.is_identity else pull_push(y, known)
    total = torch.zeros_like(y)
    views = prior.symmetries[:turns]
    for k in views:
        x = turn(guess, k)
        if operator.is_identity:
            x_hat = prior.denoise(x, noise_std.clamp(min=LEAST))
        else:
            x_hat = prior.denoise_masked(x, noise_std, turn(unknown, k))
        total += turn_back(x_hat, k)
    exact = (known > 0) & (per_image(noise_std, y) == 0)
    return torch.where(exact, y, total / len(views))


def turn(x: Tensor, k: int) -> Tensor:
    """Number k (modulo 8) of the flips and quarter turns of images (B, C, H, W)."""
    x = x.rot90(k % 4, (-2, -1))
    return x.flip(-1) if k % 8 >= 4 else x


def turn_back(x: Tensor, k: int) -> Tensor:
    """Inverse of `turn`."""
    x = x.flip(-1) if k % 8 >= 4 else x
    return x.rot90(-(k % 4), (-2, -1))
