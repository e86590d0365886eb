"""Noise of a photo, or its JPEG compression: what `genprior denoise` removes if neither is given.

A JPEG is off by the rounding error of its tables, and blocks and rings look like correlated noise.
If the noise that is found is not clearly larger than that error, the compression is undone
(`operators.jpeg`), which knows in which cells the truth lies; else the noise is removed.

JPEG stores the chroma at half the resolution, as a rule, and rounds fine details to 0. White noise
is then no longer white, and hardly any of it can be seen as such in the colours. The luma still
shows it; where its finest details are rounded away, the means of 2 x 2 pixels of the luma.
"""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from genprior.api.factory import for_channels
from genprior.api.noise_law import OVER_WHITE, UNSEEN, Measured, measured_noise
from genprior.api.noise_level import assumed_noise
from genprior.api.tasks import decompressing
from genprior.core.devices import without_autocast
from genprior.core.errors import ImageError
from genprior.io.images import ImageFile
from genprior.operators.base import Operator, Quantiser
from genprior.operators.jpeg_tables import LUMA_WEIGHTS, SIZE, nearest_quality
from genprior.priors.base import Denoiser, Gaussian

# Noise counts from this many rounding errors on. Without noise 2 of 24 training photos were above
# it at quality 20, 2 at 35, 4 at 50 and 5 at 65, all textures, and with noise of 0.04 that was
# correlated over 1 px before the compression all at quality 65 and higher (256 x 256 pixels).
EXCESS = 2.0
# Level of white noise that a photo with chroma of half the resolution is denoised with, as a part
# of the noise before the compression: the chroma has lost some. On six training photos (noise 0.05
# and 0.1, quality 50, 75 and 90) the best of 0.7, 0.8, 0.9 and 1 was 0.7 to 0.9.
SHARE = 0.85
# Noise is left in the finest details if its level is this part of their mean rounding step.
FINE, LEVELS = 0.5, 255


@torch.inference_mode(False)
@without_autocast
def noise_or_compression(
    image: ImageFile, y: Tensor, operator: Operator, prior: object
) -> tuple[Operator, Measured]:
    """Returns the operator that a photo is restored with, and its noise.

    Arguments:
        image: The photo.
        y: Its pixels, (1, C, H, W), on the device of the prior.
        operator: The operator of denoising.
        prior: Used to estimate the noise.

    Raises:
        SettingError: The noise cannot be estimated.
    """
    noise = measured_noise("auto", y, operator, prior)
    hidden = noise.level.item() < UNSEEN and noise.law is None
    coding = _coding(image, hidden)
    if coding is None or not isinstance(prior, Denoiser) or isinstance(prior, Gaussian):
        return operator, noise
    error = coding.error_std(y).item()
    quality = f"JPEG quality {nearest_quality(_luma_table(coding))}"
    of_luma = None
    little = noise.level.item() < EXCESS * error
    if (
        (little or noise.law is not None)
        and y.shape[1] == len(LUMA_WEIGHTS) and min(y.shape[-2:]) > 1
    ):
        of_luma = _noise_of_luma(y, coding, operator, prior, EXCESS * error)
        if of_luma and not little and noise.level.item() > OVER_WHITE * of_luma.level.item():
            of_luma = None  # correlated in the luma, too
    if of_luma is None and little:
        return coding, Measured(torch.zeros(1), found=(quality,))
    noise = of_luma or noise
    return operator, replace(noise, found=(", ".join(filter(None, (*noise.found, quality))),))


def _coding(image: ImageFile, hidden: bool) -> Quantiser | None:
    """Returns the operator of the JPEG that a photo is, or was if its noise cannot be seen."""
    if image.coding is None and not hidden:
        return None
    try:
        return cast(Quantiser, decompressing()([image], False))
    except ImageError:
        return None


def _noise_of_luma(
    y: Tensor, coding: Quantiser, operator: Operator, prior: Denoiser, least: float
) -> Measured | None:
    """Returns the noise of a photo that was white before its compression, if the luma shows it.

    Arguments:
        y: The photo, (1, 3, H, W).
        coding: Its compression.
        operator, prior: See `noise_or_compression`.
        least: Smaller levels of the luma are no noise.
    """
    weights = y.new_tensor(LUMA_WEIGHTS)
    luma, grey = (y * weights.reshape(-1, 1, 1)).sum(dim=1, keepdim=True), for_channels(prior, 1)
    level = 2 * assumed_noise("auto", avg_pool2d(luma, 2), operator, grey)
    if level.item() < max(2 * UNSEEN, least):
        return None
    if LEVELS * level.item() > FINE * _luma_table(coding)[SIZE // 2 :, SIZE // 2 :].mean().item():
        level = assumed_noise("auto", luma, operator, grey)  # nothing is rounded away
        if level.item() < max(UNSEEN, least):
            return None
    share = 1.0 if coding.described()["sampling"] == "4:4:4" else SHARE
    return Measured(share * level / weights.norm().to(level), found=("",))


def _luma_table(coding: Quantiser) -> Tensor:
    luma, _ = coding.described()["tables"]
    return torch.tensor(luma).reshape(SIZE, SIZE).float()
