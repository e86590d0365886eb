"""Blind noise level estimation: the level of maximum likelihood under a denoising prior.

The density p of y = x + sigma n obeys the heat equation in sigma^2 / 2, and its score is
s = (D(y) - y) / sigma^2 with the denoiser D, so that

    d log p(y) / d sigma^2 = (||s||^2 + div s) / 2

is 0 if ||y - D(y)||^2 = sigma^2 (N - div D), with N the count of numbers in y. If y has holes,
y, N and div are restricted to the known pixels, and D is the posterior mean given these pixels.
The divergence is estimated with one random vector of signs, the same at all levels.

References:
    An Empirical Bayes Approach to Statistics, Robbins, 1956 (Tweedie's formula).
    A Stochastic Estimator of the Trace of the Influence Matrix, Hutchinson, 1990.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from genprior.api.factory import prior_on
from genprior.core.devices import pick_device, without_autocast
from genprior.core.errors import SettingError
from genprior.core.pull_push import pull_push
from genprior.io.arrays import to_tensor
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

# Range of the search, from half a grey level of 8 bits to noise that hides most of an image.
LOWEST, HIGHEST = 0.002, 0.5
# Relative error of the search, and the first relative change of the level.
TOLERANCE = 0.01
FIRST_STEP = 0.15
# Side and distance, in pixels, of the windows of the first guess.
WINDOW, STRIDE = 15, 7
# Larger images are represented by four tiles with this side.
TILE = 64
PROBE_SEED = 2
TINY = 1e-12


@torch.inference_mode(False)
@without_autocast
def estimate_noise(
    image: Any,
    prior: str | Path | object = "ddpm",
    device: str = "auto",
    keep: Any = None,
) -> Tensor:
    """Estimates the level of white Gaussian noise in images.

    It takes about five evaluations of the prior with a backward pass each; for large images, on
    four small tiles. For photographs with noise levels of 0.01 to 0.1 the error is within 5 %,
    also if they are blurred, and 10 to 15 % if they are grey
    (benchmarks/results/noise_level.md). A single hole does not reduce the accuracy. With half of
    the pixels missing, a level of 0.01 is underestimated by a fifth on average; with nine tenths
    missing, all estimates are rough. For an image that was clipped to [0, 1] after the noise was
    added, the estimate is the level after clipping. The level of noise that is not white is
    underestimated, and possibly also the level in grey images without any structure.

    Arguments:
        image: Tensor (B, C, H, W), numpy array (H, W, C) or PIL image; see `to_tensor`.
        prior: A denoiser: name, checkpoint folder or object; see `load_prior`.
        device: See `restore`.
        keep: Mask, 1 or True for a known pixel, shape (H, W) or (B or 1, 1, H, W); None if all
            are known. With holes, the prior must be able to inpaint.

    Returns:
        Noise level of each image in units of [0, 1], shape (B,), between 0.002 and 0.5.

    Raises:
        SettingError: The prior is not a denoiser, or there are holes and it cannot inpaint.
        ValueError: The prior does not support the size of the image, or `keep` has another size.
        FloatingPointError: The network gave NaN or infinite numbers.
    """
    y, _ = to_tensor(image)
    target = pick_device(device, y)
    _, prior = prior_on(prior, target)
    if not isinstance(prior, Denoiser):
        raise SettingError(
            f"the noise is estimated by a denoiser, and {type(prior).__name__} is not one: give "
            f"the level, or use the prior ddpm"
        )
    y = y.detach().to(target, torch.float32).clone()
    known = torch.ones_like(y[:, :1]) if keep is None else _known(keep, y)
    if not prior.is_inpainter and (known == 0).any():
        raise SettingError(
            f"{type(prior).__name__} cannot inpaint, so it would treat the values in holes as "
            f"noise: give the level, or use the prior ddpm"
        )
    levels = []
    for one, mask in zip(y.split(1), known.split(1), strict=True):
        part, seen = (one, mask) if prior.receptive_radius is None else _tiles(one, mask)
        levels.append(_maximum_likelihood(part, seen, prior))
    return torch.tensor(levels)


def assumed_noise(noise_std: str, y: Tensor, operator: Operator, prior: object) -> Tensor:
    """Returns the noise levels for `noise_std="auto"`, shape (B,).

    Raises:
        SettingError: `noise_std` is another string, or the levels cannot be estimated.
    """
    if noise_std != "auto":
        raise SettingError(f"noise_std must be a number, one for each image or 'auto', got "
                           f"{noise_std!r}")
    if not operator.is_differentiable:
        raise SettingError(
            f"the error of {type(operator).__name__} is that of rounding: leave the noise level "
            f"at 0"
        )
    if not operator.is_linear:
        raise SettingError(
            f"the noise level cannot be estimated from a measurement by "
            f"{type(operator).__name__}, which is not linear: give a number"
        )
    known = operator.mask_unmeasured(torch.ones_like(y))
    holes = (known == 0).any()
    images = operator.measures_images or operator.is_pixel_mask
    if not images or (holes and not operator.is_mask):
        raise SettingError(
            "the noise level can be estimated only from images whose pixels are known in all "
            "channels or in none: give a number"
        )
    if getattr(prior, "receptive_radius", None) is None and not (operator.is_identity or holes):
        raise SettingError(
            "the noise level cannot be estimated under this prior, since it does not describe "
            "images that are blurred or downsampled: give a number"
        )
    return estimate_noise(y, prior, str(y.device), known[:, :1])


def _known(keep: Any, y: Tensor) -> Tensor:
    """Returns the mask as 1 and 0, shape (B, 1, H, W)."""
    known = torch.as_tensor(keep).to(y.device) != 0
    try:
        known = known.expand(len(y), 1, *y.shape[-2:])
    except RuntimeError:
        raise ValueError(
            f"keep must have shape (H, W) or (B or 1, 1, H, W) of the image, got "
            f"{tuple(known.shape)} for {tuple(y.shape)}"
        ) from None
    if not known.flatten(1).any(dim=1).all():
        raise ValueError("keep marks no pixel of an image as known: there is no noise to estimate")
    return known.to(y)


def _maximum_likelihood(y: Tensor, known: Tensor, prior: Denoiser) -> float:
    signs = torch.randint(0, 2, y.shape, generator=torch.Generator().manual_seed(PROBE_SEED))
    signs = (2 * signs - 1).to(y) * known
    count, unknown = known.expand_as(y).sum(), 1 - known
    complete = not unknown.any()

    @functools.cache
    def excess(log_sigma: float) -> float:
        """Returns log(residual / expected residual), which decreases with the level."""
        sigma = math.exp(log_sigma)
        with torch.enable_grad():
            x = y.detach().requires_grad_()
            if complete:
                x_hat = prior.denoise(x, sigma)
            else:
                x_hat = prior.denoise_masked(pull_push(x, known), sigma, unknown)
            # of a number, since with `grad_outputs` torch imports sympy, for half a second
            slope = torch.autograd.grad((signs * x_hat).sum(), x)[0]
        expected = sigma**2 * (count - (slope * signs).sum())
        residual = (known * (y - x_hat.detach())).square().sum()
        ratio = (residual / expected.clamp(min=TINY)).clamp(min=TINY).item()
        if not math.isfinite(ratio):
            raise FloatingPointError("the network gave NaN or infinite numbers: give the level")
        return math.log(ratio)

    return math.exp(_root(excess, math.log(_level_of_flat_parts(y, known))))


def _level_of_flat_parts(y: Tensor, known: Tensor) -> float:
    """Returns the noise level where an image varies least; 0.03 if the known pixels are too few.

    It is the tenth percentile over windows of the RMS difference across the diagonals of 2 x 2
    pixels.
    """
    a, b, c, d = (known[..., i : known.shape[-2] - 1 + i, j : known.shape[-1] - 1 + j]
                  for i in (0, 1) for j in (0, 1))
    complete = a * b * c * d
    if not complete.any():
        return 0.03
    window = [min(WINDOW, side) for side in complete.shape[-2:]]
    share = functional.avg_pool2d(complete, window, STRIDE)
    difference = (y.diff(dim=-1).diff(dim=-2) / 2).square() * complete
    variance = functional.avg_pool2d(difference, window, STRIDE) / share
    enough = (share >= share.max() / 2).expand_as(variance)
    return variance[enough].quantile(0.1).sqrt().clamp(LOWEST, HIGHEST).item()


def _root(excess: Callable[[float], float], guess: float) -> float:
    """Returns the root of a decreasing function near a guess, between the limits of the search."""
    low, high = math.log(LOWEST), math.log(HIGHEST)
    x, value = guess, excess(guess)
    direction, step = math.copysign(1, value), FIRST_STEP
    while True:
        step = max(step, abs(value))
        end = min(max(x + direction * step, low), high)
        value_there = excess(end)
        if value_there * direction <= 0:
            break
        if end in (low, high):
            return end
        x, value, step = end, value_there, 2 * step
    return _root_between(excess, x, value, end, value_there)


def _root_between(
    f: Callable[[float], float], a: float, value_a: float, b: float, value_b: float
) -> float:
    """Returns a root between a and b, where the values have opposite signs, to `TOLERANCE`.

    The Illinois method. `brentq` of scipy would evaluate both ends again, and take a third of a
    second to import.

    References:
        A Modified Regula Falsi Method for Computing the Root of an Equation, Dowell and
            Jarratt, 1971.
    """
    while value_b and abs(b - a) > TOLERANCE:
        step = value_b * (b - a) / (value_a - value_b)
        c = b + math.copysign(max(abs(step), TOLERANCE / 2), a - b)
        value = f(c)
        if value * value_b < 0:
            a, value_a = b, value_b
        else:
            value_a /= 2
        b, value_b = c, value
    return b


def _tiles(y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a batch of four tiles of a large image, those with most known pixels, and masks."""
    rows, columns = (_spans(side) for side in y.shape[-2:])
    spans = [(row, column) for row in rows[:2] for column in columns[:2]]
    if (known == 0).any():
        spans = [(row, column) for row in rows for column in columns]
        spans.sort(key=lambda span: -known[..., span[0], span[1]].sum().item())
    chosen = spans[: len(rows[:2]) * len(columns[:2])]
    tiles, masks = (
        torch.cat([t[..., row, column] for row, column in chosen]) for t in (y, known)
    )
    return tiles, masks


def _spans(side: int) -> list[slice]:
    """Returns a short side as one span; of a long side two spans, then spans that cover it."""
    if side <= 2 * TILE:
        return [slice(None)]
    margin = (side - 2 * TILE) // 4
    starts = [margin, side - margin - TILE, *range(0, side - TILE + 1, TILE)]
    return [slice(start, start + TILE) for start in dict.fromkeys(starts)]
