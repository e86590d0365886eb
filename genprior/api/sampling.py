"""Samples of a prior: `genprior.sample`."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from genprior.api.factory import prior_on
from genprior.core.devices import pick_device
from genprior.core.random_streams import DRAW, Noise
from genprior.inverse.diffusion.unconditional import sample_denoiser
from genprior.inverse.execution.executor import chunk_size, chunks
from genprior.inverse.execution.monitor import MonitoredDenoiser
from genprior.priors.base import Decoder, Denoiser

ANY_SIZE = (256, 256)


def sample(
    prior: str | Path | object,
    count: int = 1,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    steps: int = 100,
    eta: float = 1.0,
    temperature: float = 1.0,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: Callable[[int, int], object] | None = None,
) -> Tensor:
    """Draws images from a prior.

    Arguments:
        prior: Name, checkpoint folder or object; see `load_prior`.
        count: Number of images, >= 1.
        size: Their height and width in pixels; None is the only one that the prior can make, or
            256 x 256 if it can make any.
        channels: 3 for colour, 1 for grey; None is what the prior was made for.
        steps: Network evaluations of a diffusion prior, >= 1.
        eta: 1 is ancestral sampling (DDPM), 0 is DDIM; of a diffusion prior.
        temperature: Factor of the latents of a prior that decodes, >= 0: below 1 images are
            less varied and more typical.
        seed: Seed; image i depends on (seed, i) alone, and is not what `restore` draws for it.
        device: See `restore`.
        progress: See `restore`; of a diffusion prior.

    Returns:
        Images, shape (count, channels, *size), clipped to [0, 1].

    Raises:
        ValueError: An argument is out of its range.
        FloatingPointError: The prior gave NaN or infinite numbers.
        TypeError: The prior neither denoises nor decodes.
    """
    if count < 1 or min(size or (1,)) < 1 or steps < 1:
        raise ValueError(f"count, size and steps must be at least 1, got {count}, {size}, {steps}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be >= 0 and finite, got {temperature}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 (DDIM) and 1 (DDPM), got {eta}")
    device = pick_device(device, torch.empty(0))
    _, prior = prior_on(prior, device)
    if not isinstance(prior, Decoder | Denoiser):
        raise TypeError(f"{type(prior).__name__} can neither denoise nor decode, so not sample")
    channels = channels or getattr(prior, "channels", 3)
    size = size or getattr(prior, "size", None) or ANY_SIZE
    like = torch.zeros(count, channels, *size, device=device)
    parts = chunks(list(range(count)), chunk_size(like.shape, device))
    decodes = isinstance(prior, Decoder)
    watched = (
        None if decodes else MonitoredDenoiser(prior, "float32", progress, steps * len(parts))
    )
    draws = []
    for part in parts:
        noise = Noise(seed, [(i, *DRAW) for i in part])
        shape = like[part].shape
        if decodes:
            z = noise.normal(like.new_zeros(()).expand(prior.latent_shape(shape)))
            with torch.no_grad():
                draws.append(prior.decode(temperature * z, shape))
        else:
            draws.append(sample_denoiser(watched, like[part], noise, steps, eta))
            watched.check()
    x = torch.cat(draws)
    if not x.isfinite().all():
        raise FloatingPointError("the prior gave NaN or infinite numbers: lower the temperature")
    return x.clamp(0, 1)
