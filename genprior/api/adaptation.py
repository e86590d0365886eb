"""Adaptation of a prior to the image at hand (`adapt_prior`).

The prior learns to predict known pixels that are hidden from it,

    min_w E || (D_w(y, known and not hidden) - y)[hidden] ||^2

where D_w is `denoise_masked` with the weights w. Hidden pixels have the shape of the hole, moved
to a random place, so that the prior practises on known pixels what it then does in the hole. If
more than 30 % of the image is missing, a fifth of the known pixels is hidden at random instead.
A quarter of the image is not learnt, but tells whether the prior got better.
Noise that is independent in each pixel does not bias the prediction (Noise2Noise).

References:
    Image-Adaptive GAN based Reconstruction, Hussein, Tirer and Giryes, 2020 (weights fitted to one
        measurement).
    Noise2Self: Blind Denoising by Self-Supervision, Batson and Royer, 2019 (hidden pixels).
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from genprior.api.factory import as_operator, operator_on, prior_on
from genprior.api.inputs import random_seed, take_measurement, whole_number
from genprior.core.devices import pick_device, without_autocast
from genprior.core.errors import SettingError
from genprior.core.pull_push import pull_push
from genprior.core.random_streams import Noise
from genprior.io.arrays import noise_levels
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

LEARNING_RATE = 1e-4
# Steps over which the learning rate rises; afterwards it falls linearly to 0.
WARMUP = 10
# Side in pixels of the parts of the image that are learnt from, and their number per step.
SIDE, PARTS = 96, 2
# Lessons on which the prior before and after are compared.
CHECKS = 6
# Blocks per side of the image, and the share of them that is only for this comparison.
BLOCKS, HELD_OUT = 8, 0.25
# A larger share of missing pixels is taken for scattered ones.
SCATTERED, HIDDEN = 0.3, 0.2


@dataclass(frozen=True)
class Adaptation:
    """A prior adapted to an image.

    Arguments:
        prior: The adapted prior, or the given one if it predicts hidden pixels better.
        steps: Optimisation steps made.
        error_before: RMS error of the given prior in hidden pixels, in units of [0, 1].
        error_after: The same of the prior after these steps.
    """

    prior: nn.Module
    steps: int
    error_before: float
    error_after: float

    @property
    def improved(self) -> bool:
        """Whether the adapted prior is better than the given one, and so the one to use."""
        return self.error_after < self.error_before


@torch.inference_mode(False)
@without_autocast
def adapt_prior(
    y: Any,
    operator: Operator,
    prior: str | Path | object = "ddpm",
    noise_std: float | Sequence[float] | Tensor = 0.0,
    seconds: float = 60.0,
    steps: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Adaptation:
    """Trains a copy of a prior further on the known pixels of an image with holes.

    It helps where the image repeats itself: in textures, fences, walls and prints. The prior
    before and the one after predict hidden pixels that were not learnt; the better one is
    returned.

    Arguments:
        y: Images with missing pixels; see `restore`. Several images get one prior for all.
        operator: Operator that removes pixels, see `make_operator("inpaint")`.
        prior: Denoiser that can inpaint; see `restore`.
        noise_std: Noise level of the known pixels in units of [0, 1], one number or one per
            image.
        seconds: Time of the adaptation, > 0. The number of steps then depends on the machine.
        steps: Number of steps, >= 1, instead of a time: repeats a result.
        seed: Seed of the hidden pixels.
        device: See `restore`.

    Returns:
        The adapted prior, for `restore(y, operator, adaptation.prior)`.

    Raises:
        SettingError: The prior cannot inpaint, or is not a network.
        ValueError: An argument is out of its range, or no pixel is missing.
    """
    operator = as_operator(operator)
    measurement, _, _ = take_measurement(y, operator)
    device = pick_device(device, measurement)
    operator = operator_on(operator, device)
    _, prior = prior_on(prior, device)
    if not isinstance(prior, Denoiser) or not prior.is_inpainter:
        raise SettingError(
            f"only priors that inpaint can be adapted, and {type(prior).__name__} cannot: use ddpm"
        )
    if not isinstance(prior, nn.Module) or not any(True for _ in prior.parameters()):
        raise SettingError(f"{type(prior).__name__} has no weights to adapt: use ddpm")
    if steps is None and not 0 < seconds < float("inf"):
        raise ValueError(f"seconds must be > 0 and finite, got {seconds}")
    steps = None if steps is None else whole_number("steps", steps, 1)
    image = measurement.detach().to(device, torch.float32).clone()
    known = operator.mask_unmeasured(torch.ones_like(image))[:, :1] if operator.is_mask else None
    if known is None or not operator.measures_images or not (known == 0).any():
        raise ValueError("a prior is adapted to images with missing pixels, and none are missing")
    sigma = noise_levels(noise_std, image, True).to(image)

    learning, checking, splitting = Noise(random_seed(seed), [(0,), (1,), (2,)]).generators
    held_out = _blocks(known, splitting)
    checks = list(islice(_lessons(image, known, sigma, held_out, checking), CHECKS))
    before = _error(prior, checks)
    adapted = copy.deepcopy(prior)
    lessons = _lessons(image, known, sigma, known - held_out, learning)
    done = _train(adapted, lessons, seconds, steps)
    adapted.requires_grad_(False)
    after = _error(adapted, checks)
    return Adaptation(adapted if after < before else prior, done, before, after)


@dataclass(frozen=True)
class _Lesson:
    """Parts of the image, and which of their pixels are seen, and are to be predicted."""

    y: Tensor
    seen: Tensor
    targets: Tensor
    sigma: Tensor

    def squared_error(self, prior: Denoiser) -> Tensor:
        """Returns the mean squared error in the targets."""
        guess = pull_push(self.y * self.seen, self.seen)
        x = prior.denoise_masked(guess, self.sigma, 1 - self.seen)
        error = (self.targets * (x - self.y)).square().sum()
        return error / (self.targets.sum() * self.y.shape[1])


def _blocks(known: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the known pixels in a quarter of the blocks of each image, which are not learnt."""
    height, width = known.shape[-2:]
    side = max(1, min(height, width) // BLOCKS)
    draws = torch.rand(len(known), 1, -(-height // side), -(-width // side), generator=generator)
    blocks = draws <= draws.flatten(1).quantile(HELD_OUT, dim=1).reshape(-1, 1, 1, 1)
    wide = blocks.repeat_interleave(side, -2).repeat_interleave(side, -1)
    return known * wide[..., :height, :width].to(known)


def _lessons(
    y: Tensor, known: Tensor, sigma: Tensor, allowed: Tensor, generator: torch.Generator
) -> Iterator[_Lesson]:
    """Yields parts of the images with hidden pixels, without end; targets are `allowed` ones."""

    def below(limit: int) -> int:
        return int(torch.randint(0, limit, (1,), generator=generator))

    height, width = y.shape[-2:]
    tall, wide = min(SIDE, height), min(SIDE, width)
    while True:
        parts: list[tuple[Tensor, ...]] = []
        while len(parts) < PARTS:
            i = below(len(y))
            one, seen, wanted = (t[i : i + 1] for t in (y, known, allowed))
            hole = (1 - seen).roll((below(height), below(width)), dims=(-2, -1))
            hidden = seen * (hole.flip(-1) if below(2) else hole)
            if 1 - seen.mean() > SCATTERED or not (hidden * wanted).any():
                hidden = seen * (torch.rand(seen.shape, generator=generator).to(seen) < HIDDEN)
            targets = hidden * wanted
            if not targets.any():  # of so few pixels some may be hidden in vain
                targets = hidden = wanted if wanted.any() else seen
            places = targets[0, 0].nonzero()
            row, column = places[below(len(places))].tolist()
            top = min(max(row - below(tall), 0), height - tall)
            left = min(max(column - below(wide), 0), width - wide)
            cut = (..., slice(top, top + tall), slice(left, left + wide))
            parts.append((one[cut], (seen - hidden)[cut], targets[cut], sigma[i : i + 1]))
        yield _Lesson(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _train(
    prior: nn.Module, lessons: Iterator[_Lesson], seconds: float, steps: int | None
) -> int:
    """Trains the weights that `denoise_masked` uses; returns the steps made."""
    parameters = [p.requires_grad_(True) for p in prior.parameters() if p.is_floating_point()]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE)
    started, done, progress = time.perf_counter(), 0, 0.0
    while progress < 1:
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min((done + 1) / WARMUP, 1 - progress)
        optimizer.zero_grad()
        with torch.enable_grad():
            next(lessons).squared_error(cast(Denoiser, prior)).backward()
        optimizer.step()
        done += 1
        progress = done / steps if steps else (time.perf_counter() - started) / seconds
    return done


@torch.no_grad()
def _error(prior: Denoiser, checks: list[_Lesson]) -> float:
    """Returns the RMS error in the hidden pixels of all checks."""
    return torch.stack([check.squared_error(prior) for check in checks]).mean().sqrt().item()
