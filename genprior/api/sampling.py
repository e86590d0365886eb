"""Unconditional sampling from a prior: `genprior.sample`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from genprior.api.factory import prior_on
from genprior.api.inputs import random_seed, whole_number
from genprior.api.progress_bar import as_callback
from genprior.core.devices import pick_device
from genprior.core.errors import SettingError
from genprior.core.random_streams import DRAW, Noise
from genprior.inverse.diffusion.unconditional import sample_denoiser
from genprior.inverse.execution.executor import chunk_size, chunks
from genprior.inverse.execution.monitor import MonitoredDenoiser
from genprior.priors.base import Decoder, Denoiser, LatentDenoiser

DEFAULT_SIZE = (256, 256)


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
    progress: Callable[[int, int], object] | bool | None = None,
    truncation: float | None = None,
) -> Tensor:
    """Draws images from a prior.

    Arguments:
        prior: Name, checkpoint folder or object; see `load_prior`.
        count: Number of images, >= 1.
        size: Height and width of the images in pixels. None is the fixed size of the prior. If
            it supports any size, None is the size of its training crops, or 256 x 256 if its
            checkpoint does not record it.
        channels: 3 for colour, 1 for grey; None is the number of channels of the prior.
        steps: Network evaluations of a diffusion prior, >= 1.
        eta: For a diffusion prior, 1 is ancestral sampling (DDPM) and 0 is DDIM.
        temperature: Factor of the latents of a decoder, >= 0; below 1 the images are less varied
            and more typical.
        seed: Seed; image i depends on (seed, i) alone. `restore` uses other noise for it.
        device: See `restore`.
        progress: For a diffusion prior; see `restore`.
        truncation: Draw the latents of a decoder from the normal distribution truncated to
            [-truncation, truncation], > 0, as for BigGAN (Brock et al. 2019): the lower, the more
            typical and the less varied the images are. None does not truncate.

    Returns:
        Images, shape (count, channels, H, W), clipped to [0, 1].

    Raises:
        ValueError: An argument is out of its range.
        FloatingPointError: The prior gave NaN or infinite numbers.
        TypeError: The prior is neither a denoiser nor a decoder.
    """
    count, steps = whole_number("count", count, 1), whole_number("steps", steps, 1)
    progress = as_callback(progress)
    seed = random_seed(seed)
    if size is not None:
        if not isinstance(size, Sequence) or len(size) != 2:
            raise SettingError(f"size must be (height, width), got {size!r}")
        size = (whole_number("size", size[0], 1), whole_number("size", size[1], 1))
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be >= 0 and finite, got {temperature}")
    if truncation is not None and not 0 < truncation < float("inf"):
        raise ValueError(f"truncation must be > 0 and finite, got {truncation}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be between 0 (DDIM) and 1 (DDPM), got {eta}")
    device = pick_device(device, torch.empty(0))
    _, prior = prior_on(prior, device)
    if not isinstance(prior, Decoder | Denoiser | LatentDenoiser):
        raise TypeError(f"{type(prior).__name__} can neither denoise nor decode: choose another")
    depth: int = channels or getattr(prior, "channels", None) or 3
    size = size or getattr(prior, "size", None) or getattr(prior, "sample_size", None)
    size = size or DEFAULT_SIZE
    like = torch.zeros(count, depth, *size, device=device)
    parts = chunks(list(range(count)), chunk_size(like.shape, device))
    if isinstance(prior, Decoder):
        draw = _decoding(prior, temperature, truncation)
    elif isinstance(prior, LatentDenoiser):
        draw = _decoding_denoised(prior, steps, eta, len(parts), progress)
    else:
        draw = _denoising(prior, steps, eta, len(parts), progress)
    x = torch.cat([draw(Noise(seed, [(i, *DRAW) for i in part]), like[part]) for part in parts])
    if not x.isfinite().all():
        raise FloatingPointError("the prior gave NaN or infinite numbers: lower the temperature")
    return x.clamp(0, 1)


def _decoding(
    prior: Decoder, temperature: float, truncation: float | None
) -> Callable[[Noise, Tensor], Tensor]:
    """Returns a function that decodes random latents to images of the shape of a tensor."""

    def draw(noise: Noise, like: Tensor) -> Tensor:
        z = noise.normal(like.new_zeros(()).expand(prior.latent_shape(like.shape)))
        if truncation is not None:
            z = truncated_normal(z, truncation)
        with torch.no_grad():
            return prior.decode(temperature * z, like.shape)

    return draw


class _Latents(Denoiser):
    """The denoiser of latents on (z + 1) / 2, the units of images that samplers assume."""

    def __init__(self, prior: LatentDenoiser) -> None:
        self.prior = prior

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return (self.prior.denoise_latents(2 * x - 1, 2 * sigma) + 1) / 2


def _decoding_denoised(
    prior: LatentDenoiser, steps: int, eta: float, calls: int,
    progress: Callable[[int, int], object] | None,
) -> Callable[[Noise, Tensor], Tensor]:
    """Returns a function that samples latents by a diffusion sampler, and decodes them."""
    sampled = _denoising(_Latents(prior), steps, eta, calls, progress)

    def draw(noise: Noise, like: Tensor) -> Tensor:
        z = sampled(noise, like.new_zeros(()).expand(prior.latent_shape(like.shape)))
        with torch.no_grad():
            return prior.decode(2 * z - 1, like.shape)

    return draw


def truncated_normal(z: Tensor, bound: float) -> Tensor:
    """Maps standard normal numbers to the normal distribution truncated to [-bound, bound].

    The map is increasing, z' = F^-1(F(-b) + F(z) (F(b) - F(-b))) with F the normal distribution
    function, so that the same noise gives similar images at all bounds.
    """
    device, z = z.device, z.cpu().double()  # some devices have no float64
    low = torch.special.ndtr(z.new_tensor(-bound))
    # By symmetry F is only evaluated below 0, where it is exact.
    share = low + torch.special.ndtr(-z.abs()) * (1 - 2 * low)
    return (torch.special.ndtri(share).abs() * z.sign()).clamp(-bound, bound).float().to(device)


def _denoising(
    prior: Denoiser, steps: int, eta: float, calls: int,
    progress: Callable[[int, int], object] | None,
) -> Callable[[Noise, Tensor], Tensor]:
    """Returns a function that samples images of the shape of a tensor by a diffusion sampler."""
    monitored = MonitoredDenoiser(prior, "float32", progress, steps * calls)

    def draw(noise: Noise, like: Tensor) -> Tensor:
        x = sample_denoiser(monitored, like, noise, steps, eta)
        monitored.check()
        return x

    return draw
