"""The noise level of a picture: that of maximum likelihood under a prior.

The law p of y = x + sigma n obeys the heat equation in sigma^2 / 2, and its score is
s = (D(y) - y) / sigma^2, so that

    d log p(y) / d sigma^2 = (||s||^2 + div s) / 2

is 0 where ||y - D(y)||^2 = sigma^2 (N - div D), with N the numbers in y. The divergence is
estimated by one random vector of signs, the same at all levels.

References:
    An Empirical Bayes Approach to Statistics, Robbins, 1956 (Tweedie's formula).
    A Stochastic Estimator of the Trace of the Influence Matrix, Hutchinson, 1990.
"""

import functools
import math
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from genprior.arrays import to_tensor
from genprior.errors import SettingError
from genprior.operators.base import Operator
from genprior.parts import place_prior
from genprior.priors.base import Denoiser
from genprior.watch import pick_device

# Between half a grey level of 8 bits and what leaves little of a picture.
LEAST, MOST = 0.002, 0.5
# Relative error of the search.
TOLERANCE = 0.01
# Of larger pictures four parts of this side tell enough.
PART = 64
PROBE = 2
TINY = 1e-12


@torch.inference_mode(False)
def estimate_noise(
    image: Any, prior: str | Path | object = "ddpm", device: str = "auto"
) -> Tensor:
    """Estimates the level of white noise in pictures.

    It takes about ten evaluations of the prior with a backward pass each, of large pictures in
    four small parts. On photos with noise of 0.01 to 0.1 it is right to 5 %, blurred ones too,
    on grey ones to 10 or 15 % (benchmarks/results/noise_level.md). Where noise was clipped to
    [0, 1], it is that of what is left. Noise that is not white is found too weak, and so may be
    that of a grey picture which is flat all over.

    Arguments:
        image: Tensor (B, C, H, W), numpy array (H, W, C) or PIL image; see `to_tensor`.
        prior: A denoiser: name, checkpoint folder or object; see `load_prior`.
        device: See `restore`.

    Returns:
        Level of each picture in units of [0, 1], shape (B,), between 0.002 and 0.5.

    Raises:
        SettingError: The prior is no denoiser.
        ValueError: The picture has a size that the prior was not made for.
        FloatingPointError: The network gave NaN or infinite numbers.
    """
    y, _ = to_tensor(image)
    place = pick_device(device, y)
    _, prior = place_prior(prior, place)
    if not isinstance(prior, Denoiser):
        raise SettingError(
            f"the noise is estimated by a denoiser, and {type(prior).__name__} is none: give the "
            f"level, or take the prior ddpm"
        )
    y = y.detach().to(place, torch.float32).clone()
    levels = [_most_likely(part if prior.reach is None else _parts(part), prior)
              for part in y.split(1)]
    return torch.tensor(levels)


def assumed_noise(noise_std: str, y: Tensor, operator: Operator, prior: object) -> Tensor:
    """The levels that "auto" stands for, shape (B,).

    Raises:
        SettingError: It is another word, or they cannot be estimated.
    """
    if noise_std != "auto":
        raise SettingError(f"noise_std must be a number, one for each image or 'auto', got "
                           f"{noise_std!r}")
    if not operator.measures_images or (operator.observed(torch.ones_like(y)) == 0).any():
        raise SettingError(
            "the noise level is estimated from whole pictures only, this is one with holes or "
            "none at all: give a number"
        )
    if getattr(prior, "reach", None) is None and not operator.is_identity:
        raise SettingError(
            "the noise level is estimated under the law of this prior, and an image that was "
            "blurred or made smaller is no draw from it: give a number"
        )
    return estimate_noise(y, prior, str(y.device))


def _most_likely(y: Tensor, prior: Denoiser) -> float:
    signs = torch.randint(0, 2, y.shape, generator=torch.Generator().manual_seed(PROBE))
    signs = (2 * signs - 1).to(y)

    @functools.cache
    def excess(log_sigma: float) -> float:
        """Logarithm of the residual over the one expected, falling in the level."""
        sigma = math.exp(log_sigma)
        with torch.enable_grad():
            x = y.detach().requires_grad_()
            x_hat = prior.denoise(x, sigma)
            slope = torch.autograd.grad(x_hat, x, signs)[0]
        expected = sigma**2 * (y.numel() - (slope * signs).sum())
        residual = (y - x_hat.detach()).square().sum()
        ratio = (residual / expected.clamp(min=TINY)).clamp(min=TINY).item()
        if not math.isfinite(ratio):
            raise FloatingPointError("the network gave NaN or infinite numbers: give the level")
        return math.log(ratio)

    low, high = math.log(LEAST), math.log(MOST)
    if excess(low) <= 0:
        return LEAST
    if excess(high) >= 0:
        return MOST
    return math.exp(brentq(excess, low, high, xtol=TOLERANCE))


def _parts(y: Tensor) -> Tensor:
    """Four parts of a large picture as a batch."""
    rows, columns = (_spans(side) for side in y.shape[-2:])
    return torch.cat([y[..., row, column] for row in rows for column in columns])


def _spans(side: int) -> list[slice]:
    if side <= 2 * PART:
        return [slice(None)]
    margin = (side - 2 * PART) // 4
    return [slice(margin, margin + PART), slice(side - margin - PART, side - margin)]
