"""Plausibility checks of measurements and restorations: warnings for the user, by image."""

import torch
from torch import Tensor

from genprior.api.inputs import gaussian_level, noise_models
from genprior.api.kernel_estimation import kernel_doubts
from genprior.api.noise_law import UNSEEN
from genprior.operators.base import Operator, Quantiser

# Plausible range of the residual, in noise levels; below `UNSEEN` it is never too small.
MISFIT_RANGE = (0.3, 1.5)
# Measured values per value of the image; with fewer, a posterior mean may fit more closely.
FEW_MEASUREMENTS = 0.5
# Share of blocks that may have been changed after a JPEG was decoded.
SHARE_CHANGED = 0.25
# Share of values below -(2 sigma + ROUNDING) that is accepted; Gaussian noise explains 2 %.
SHARE_BELOW, ROUNDING = 0.1, 0.02


def unused_noise(physics: object, sigma: Tensor) -> tuple[str, ...]:
    """Warns if the physics has a noise model but the noise level is 0."""
    levels = {model: gaussian_level(model) for model in noise_models(physics)}
    noisy = [model for model, level in levels.items() if level is None or level.any()]
    if not noisy or (sigma > 0).all():
        return ()
    names = " and ".join(dict.fromkeys(type(model).__name__ for model in noisy))
    return (
        f"noise_std is 0, and the {names} of the physics is not used: give its level as noise_std",
    )


def check_restoration(
    y: Tensor, operator: Operator, sigma: Tensor, fit: Tensor, drawn: bool
) -> tuple[str, ...]:
    """Returns warnings about implausible measurements and restorations.

    Arguments:
        y: Measurements, shape (B, ...).
        operator: Operator of the measurements.
        sigma: Noise levels of the measurements, shape (B,).
        fit: Misfit of the restorations, shape (B,).
        drawn: Whether the restorations are posterior samples.
    """
    sigma = sigma.to(fit)
    found = list(_below_range(y, operator, sigma)) if operator.measures_images else []
    found += kernel_doubts(y, operator, sigma)
    if isinstance(operator, Quantiser):
        found += [
            f"image {i}: {operator.doubt(share)}"
            for i, share in enumerate(operator.unexplained(y).tolist()) if share > SHARE_CHANGED
        ]
    if operator.is_identity:
        found += [
            f"image {i}: without noise or holes there is nothing to restore: give noise_std"
            for i in (sigma == 0).nonzero().flatten().tolist()
        ]
    enough = (
        operator.num_measurements(y).to(fit)
        >= FEW_MEASUREMENTS * operator.image_shape(y.shape)[1:].numel()
    )
    small = (fit < MISFIT_RANGE[0]) & (sigma >= UNSEEN) & (enough | drawn)
    implausible = (sigma > 0) & ((fit > MISFIT_RANGE[1]) | small)
    return *found, *(
        f"image {i}: the misfit of the restoration is {fit[i]:.2f} noise levels, and should be "
        f"near 1: is noise_std {sigma[i]:.4g} right?"
        for i in implausible.nonzero().flatten().tolist()
    )


def _below_range(y: Tensor, operator: Operator, sigma: Tensor) -> tuple[str, ...]:
    """Warns about images with more values below 0 than the noise explains."""
    known = operator.mask_unmeasured(torch.ones_like(y)) != 0
    margin = (2 * sigma + ROUNDING).reshape(-1, 1, 1, 1).to(y)
    below = (known & (y < -margin)).flatten(1).sum(dim=1)
    shares = (below / known.flatten(1).sum(dim=1)).tolist()
    return tuple(
        f"image {i}: {share:.0%} of its values are below 0 by more than the noise: is noise_std "
        f"{sigma[i]:.4g} right, and is the image in [0, 1]? Convert an image in [-1, 1] to "
        f"(y + 1) / 2, with half the noise_std"
        for i, share in enumerate(shares) if share > SHARE_BELOW
    )
