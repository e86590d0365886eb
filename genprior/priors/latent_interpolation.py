"""Interpolation between latents of a decoder, and the truncation trick."""

import torch
from torch import Tensor

from genprior.priors.base import Decoder, Encoder


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Returns the spherical interpolation (slerp) of latents: a at t = 0, b at t = 1.

    High-dimensional normal vectors lie near a sphere, and so does the path between them.

    Arguments:
        a, b: Latents, shape (B, ...).
        t: In [0, 1].

    References:
        Sampling Generative Networks, White, 2016.
    """
    u, v = a.flatten(1), b.flatten(1)
    lengths = u.norm(dim=1) * v.norm(dim=1)
    cosine = (u * v).sum(dim=1) / lengths.clamp(min=torch.finfo(a.dtype).tiny)
    angle = cosine.clamp(-1, 1).acos().reshape(-1, *[1] * (a.ndim - 1))
    parallel = angle.sin() < 1e-4
    safe = torch.where(parallel, 1, angle.sin())
    first = torch.where(parallel, 1 - t, ((1 - t) * angle).sin() / safe)
    second = torch.where(parallel, t, (t * angle).sin() / safe)
    return first * a + second * b


def interpolate(
    prior: Decoder,
    a: Tensor,
    b: Tensor,
    count: int,
    image_shape: torch.Size | None = None,
) -> Tensor:
    """Decodes interpolated latents between two batches of images or latents.

    Arguments:
        prior: Decoder; an `Encoder` if a and b are images.
        a, b: Images (B, C, H, W), or latents if `image_shape` is given.
        count: Number of images, both ends included, >= 2.
        image_shape: Shape (B, C, H, W) of the images if a and b are latents.

    Returns:
        Images, shape (B, count, C, H, W), not clipped.

    Raises:
        TypeError: a and b are images, and the prior has no encoder.
        ValueError: `count` is below 2.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    if image_shape is None:
        if not isinstance(prior, Encoder):
            raise TypeError(
                f"{type(prior).__name__} has no encoder for images: give latents and image_shape"
            )
        image_shape = a.shape
        a, b = prior.encode(a), prior.encode(b)
    images = [prior.decode(slerp(a, b, k / (count - 1)), image_shape) for k in range(count)]
    return torch.stack(images, dim=1)


def truncate(z: Tensor, bound: float) -> Tensor:
    """Maps standard normal latents to a normal distribution truncated to [-bound, bound].

    The distribution equals that of resampling all values beyond the bound; this map is monotone.

    Arguments:
        z: Latents.
        bound: Above 0; a smaller bound gives less varied and more typical images.

    References:
        Large Scale GAN Training for High Fidelity Natural Image Synthesis, Brock, Donahue and
            Simonyan, 2019.

    Raises:
        ValueError: `bound` is not above 0.
    """
    if not bound > 0:
        raise ValueError(f"bound must be above 0, got {bound}")
    x = z.to("cpu", torch.float64)  # single precision is too coarse for the tails
    low, high = torch.special.ndtr(torch.tensor([-bound, bound], dtype=torch.float64))
    return torch.special.ndtri(low + (high - low) * torch.special.ndtr(x)).to(z)
