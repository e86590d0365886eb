"""The noise level of a picture: that of maximum likelihood under a prior.

The law p of y = x + sigma n obeys the heat equation in sigma^2 / 2, and its score is
s = (D(y) - y) / sigma^2, so that

    d log p(y) / d sigma^2 = (||s||^2 + div s) / 2

is 0 where ||y - D(y)||^2 = sigma^2 (N - div D), with N the numbers in y. Where y has holes all
this is of the known pixels, given which D is the posterior mean of them. The divergence is
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

from genprior.api.factory import prior_on
from genprior.core.devices import pick_device, without_autocast
from genprior.core.errors import SettingError
from genprior.core.pull_push import pull_push
from genprior.io.arrays import to_tensor
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

# Between half a grey level of 8 bits and what leaves little of a picture.
LEAST, MOST = 0.002, 0.5
# Relative error of the search.
TOLERANCE = 0.01
# Of larger pictures four parts of this side tell enough.
PART = 64
PROBE = 2
TINY = 1e-12


@torch.inference_mode(False)
@without_autocast
def estimate_noise(
    image: Any,
    prior: str | Path | object = "ddpm",
    device: str = "auto",
    keep: Any = None,
) -> Tensor:
    """Estimates the level of white noise in pictures.

    It takes about ten evaluations of the prior with a backward pass each, of large pictures in
    four small parts. On photos with noise of 0.01 to 0.1 it is right to 5 %, blurred ones too,
    on grey ones to 10 or 15 % (benchmarks/results/noise_level.md). A hole does no harm; where
    half of the pixels are missing, noise of 0.01 is found a fifth too weak on the mean, and where
    nine tenths are, all levels are rough. Where noise was clipped to [0, 1], it is that of what is
    left. Noise that is not white is found too weak, and so may be that of a grey picture which is
    flat all over.

    Arguments:
        image: Tensor (B, C, H, W), numpy array (H, W, C) or PIL image; see `to_tensor`.
        prior: A denoiser: name, checkpoint folder or object; see `load_prior`.
        device: See `restore`.
        keep: 1 or True where a pixel is known, shape (H, W) or (B or 1, 1, H, W); None: all are.
            For a prior that knows of holes.

    Returns:
        Level of each picture in units of [0, 1], shape (B,), between 0.002 and 0.5.

    Raises:
        SettingError: The prior is no denoiser, or knows of no holes and there are some.
        ValueError: The picture has a size that the prior was not made for, or `keep` another.
        FloatingPointError: The network gave NaN or infinite numbers.
    """
    y, _ = to_tensor(image)
    device = pick_device(device, y)
    _, prior = prior_on(prior, device)
    if not isinstance(prior, Denoiser):
        raise SettingError(
            f"the noise is estimated by a denoiser, and {type(prior).__name__} is none: give the "
            f"level, or take the prior ddpm"
        )
    y = y.detach().to(device, torch.float32).clone()
    known = torch.ones_like(y[:, :1]) if keep is None else _known(keep, y)
    if not prior.is_inpainter and (known == 0).any():
        raise SettingError(
            f"{type(prior).__name__} knows of no holes, and in these it would take what is there "
            f"for noise: give the level, or take the prior ddpm"
        )
    levels = []
    for one, seen in zip(y.split(1), known.split(1), strict=True):
        parts = (one, seen) if prior.receptive_radius is None else _parts(one, seen)
        levels.append(_most_likely(*parts, prior))
    return torch.tensor(levels)


def assumed_noise(noise_std: str, y: Tensor, operator: Operator, prior: object) -> Tensor:
    """The levels that "auto" stands for, shape (B,).

    Raises:
        SettingError: It is another word, or they cannot be estimated.
    """
    if noise_std != "auto":
        raise SettingError(f"noise_std must be a number, one for each image or 'auto', got "
                           f"{noise_std!r}")
    known = operator.mask_unmeasured(torch.ones_like(y))
    holes = (known == 0).any()
    images = operator.measures_images or operator.is_pixel_mask
    if not images or (holes and not operator.is_mask):
        raise SettingError(
            "the noise level is estimated from pictures whose pixels are known in all channels "
            "or in none, and this is no such picture: give a number"
        )
    if getattr(prior, "reach", None) is None and not (operator.is_identity or holes):
        raise SettingError(
            "the noise level is estimated under the law of this prior, and an image that was "
            "blurred or made smaller is no draw from it: give a number"
        )
    return estimate_noise(y, prior, str(y.device), known[:, :1])


def _known(keep: Any, y: Tensor) -> Tensor:
    """A mask as 1 and 0, shape (B, 1, H, W)."""
    known = torch.as_tensor(keep).to(y.device) != 0
    try:
        known = known.expand(len(y), 1, *y.shape[-2:])
    except RuntimeError:
        raise ValueError(
            f"a mask must have shape (H, W) or (B or 1, 1, H, W) of the picture, got "
            f"{tuple(known.shape)} for {tuple(y.shape)}"
        ) from None
    if not known.flatten(1).any(dim=1).all():
        raise ValueError("nothing of a picture is known by its mask: there is no noise to find")
    return known.to(y)


def _most_likely(y: Tensor, known: Tensor, prior: Denoiser) -> float:
    signs = torch.randint(0, 2, y.shape, generator=torch.Generator().manual_seed(PROBE))
    signs = (2 * signs - 1).to(y) * known
    count, unknown = known.expand_as(y).sum(), 1 - known
    whole = not unknown.any()

    @functools.cache
    def excess(log_sigma: float) -> float:
        """Logarithm of the residual over the one expected, falling in the level."""
        sigma = math.exp(log_sigma)
        with torch.enable_grad():
            x = y.detach().requires_grad_()
            if whole:
                x_hat = prior.denoise(x, sigma)
            else:
                x_hat = prior.denoise_masked(pull_push(x, known), sigma, unknown)
            slope = torch.autograd.grad(x_hat, x, signs)[0]
        expected = sigma**2 * (count - (slope * signs).sum())
        residual = (known * (y - x_hat.detach())).square().sum()
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


def _parts(y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Four parts of a large picture as a batch, those of which most is known, and their masks."""
    rows, columns = (_spans(side) for side in y.shape[-2:])
    spans = [(row, column) for row in rows[:2] for column in columns[:2]]
    if (known == 0).any():
        spans = [(row, column) for row in rows for column in columns]
        spans.sort(key=lambda span: -known[..., span[0], span[1]].sum().item())
    chosen = spans[: len(rows[:2]) * len(columns[:2])]
    return tuple(torch.cat([t[..., row, column] for row, column in chosen]) for t in (y, known))


def _spans(side: int) -> list[slice]:
    """All of a short side; of a long one two parts, and then others that cover it."""
    if side <= 2 * PART:
        return [slice(None)]
    margin = (side - 2 * PART) // 4
    starts = [margin, side - margin - PART, *range(0, side - PART + 1, PART)]
    return [slice(start, start + PART) for start in dict.fromkeys(starts)]
