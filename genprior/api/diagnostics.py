"""Whether what was given and what came out are likely: sentences for the user, by image."""

import deepinv
import torch
from torch import Tensor

from genprior.operators.base import Operator

# Of the residual, in noise levels.
FITS = (0.3, 1.5)
# Of numbers measured for one of the image: below, a mean may be nearer to the data.
FEW = 0.5
# Gaussian noise takes 2 % of the values farther than two standard deviations.
BELOW, ROUNDING = 0.1, 0.02


def unused_noise(physics: object, sigma: Tensor) -> tuple[str, ...]:
    """A physics that has a noise model, where no noise is said to be."""
    model = None if isinstance(physics, Operator) else getattr(physics, "noise_model", None)
    if model is None or isinstance(model, deepinv.physics.ZeroNoise) or (sigma > 0).all():
        return ()
    return (
        f"noise_std is 0, and the {type(model).__name__} of the physics is not used: give its "
        f"level as noise_std",
    )


def doubts(
    y: Tensor, operator: Operator, sigma: Tensor, fit: Tensor, drawn: bool
) -> tuple[str, ...]:
    """What is odd about a measurement and its restoration.

    Arguments:
        y: Measurements, shape (B, ...).
        operator: How they were made.
        sigma: Their noise levels, shape (B,).
        fit: Misfit of the restorations, shape (B,).
        drawn: They are samples.
    """
    sigma = sigma.to(fit)
    found = list(_below_range(y, operator, sigma)) if operator.measures_images else []
    if operator.is_identity:
        found += [
            f"image {i}: without noise or holes there is nothing to restore: give noise_std"
            for i in (sigma == 0).nonzero().flatten().tolist()
        ]
    enough = (
        operator.num_measurements(y).to(fit) >= FEW * operator.image_shape(y.shape)[1:].numel()
    )
    odd = (sigma > 0) & ((fit > FITS[1]) | ((fit < FITS[0]) & (enough | drawn)))
    return *found, *(
        f"image {i}: the restoration is {fit[i]:.2f} noise levels away from the data, "
        f"which should be near 1: is noise_std {sigma[i]:.4g} right?"
        for i in odd.nonzero().flatten().tolist()
    )


def _below_range(y: Tensor, operator: Operator, sigma: Tensor) -> tuple[str, ...]:
    """Images with more values below 0 than noise explains."""
    known = operator.mask_unmeasured(torch.ones_like(y)) != 0
    margin = (2 * sigma + ROUNDING).reshape(-1, 1, 1, 1).to(y)
    below = (known & (y < -margin)).flatten(1).sum(dim=1)
    shares = (below / known.flatten(1).sum(dim=1)).tolist()
    return tuple(
        f"image {i}: {share:.0%} of its values are below 0 by more than the noise: is noise_std "
        f"{sigma[i]:.4g} right, and the image in [0, 1]? One in [-1, 1] is given as (y + 1) / 2, "
        f"with half the noise_std"
        for i, share in enumerate(shares) if share > BELOW
    )
