"""Walks among the latents of a decoder: between two images, and nearer to the mean."""

import torch
from torch import Tensor

from genprior.priors.base import Decoder, Encoder


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Latents a fraction t of the way from a to b, along a great circle.

    Normal numbers of large dimension are near a sphere, and so is the way.

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
    straight = angle.sin() < 1e-4
    safe = torch.where(straight, 1, angle.sin())
    first = torch.where(straight, 1 - t, ((1 - t) * angle).sin() / safe)
    second = torch.where(straight, t, (t * angle).sin() / safe)
    return first * a + second * b


def interpolate(
    prior: Decoder,
    a: Tensor,
    b: Tensor,
    count: int,
    image_shape: torch.Size | None = None,
) -> Tensor:
    """Images on the way from one to another.

    Arguments:
        prior: Decoder; to go between images it must find their latents, too.
        a, b: Images (B, C, H, W), or with `image_shape` latents.
        count: Number of images, both ends included, >= 2.
        image_shape: Shape (B, C, H, W) of the images, where a and b are latents.

    Returns:
        Shape (B, count, C, H, W), not clipped.

    Raises:
        TypeError: Images are given, and the prior cannot encode them.
        ValueError: `count` is below 2.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    if image_shape is None:
        if not isinstance(prior, Encoder):
            raise TypeError(
                f"{type(prior).__name__} finds no latents of images: give latents and image_shape"
            )
        image_shape = a.shape
        a, b = prior.encode(a), prior.encode(b)
    way = [prior.decode(slerp(a, b, k / (count - 1)), image_shape) for k in range(count)]
    return torch.stack(way, dim=1)


def truncate(z: Tensor, bound: float) -> Tensor:
    """Standard normal numbers as draws of the normal law cut off at -bound and bound.

    The law is that of drawing again every number beyond; here the map is monotone.

    Arguments:
        z: Latents.
        bound: Above 0; samples are less varied and more typical where it is small.

    References:
        Large Scale GAN Training for High Fidelity Natural Image Synthesis, Brock, Donahue and
            Simonyan, 2019.

    Raises:
        ValueError: `bound` is not above 0.
    """
    if not bound > 0:
        raise ValueError(f"bound must be above 0, got {bound}")
    x = z.to("cpu", torch.float64)  # single precision has not the digits of the tails
    low, high = torch.special.ndtr(torch.tensor([-bound, bound], dtype=torch.float64))
    return torch.special.ndtri(low + (high - low) * torch.special.ndtr(x)).to(z)
