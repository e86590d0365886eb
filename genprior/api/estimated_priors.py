"""Priors estimated from images without training (texture, PCA), and texture synthesis."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genprior.core.errors import ImageError, SettingError
from genprior.core.random_streams import DRAW, Noise
from genprior.core.tensors import numbers
from genprior.io.arrays import to_tensor
from genprior.io.images import ImageFile, read_image
from genprior.io.limits import MAX_PIXELS
from genprior.priors.checkpoint import save_checkpoint
from genprior.registry import FROM_EXEMPLAR, PRIORS, lookup


def estimate_prior(
    name: str, exemplar: Any, keep: Tensor | None = None, **settings: Any
) -> nn.Module:
    """Estimates a prior from one image.

    Arguments:
        name: "texture".
        exemplar: Tensor (C, H, W) or (1, C, H, W) in [0, 1], numpy (H, W, C) or PIL image;
            see `to_tensor`.
        keep: Mask of the known pixels (non-zero), shape (1, 1, H, W); None if all are known.
        settings: Other arguments of the prior, such as `margin` and `floor` of a texture.

    To inpaint the exemplar itself, use `make_solver("gaussian", border=3)`. Conditioned on all
    known pixels of the image that it was estimated from, the prior would fill the hole with its
    mean.

    Returns:
        The prior, for images of any size with as many channels as the exemplar.

    Raises:
        ValueError: The prior is not of this kind, `exemplar` holds several images, it has no
            known pixel, or `keep` has another size.

    >>> prior = estimate_prior("texture", torch.rand(3, 20, 30), floor=0.0)
    >>> prior.texton.shape
    torch.Size([3, 20, 30])
    """
    if name not in FROM_EXEMPLAR:
        raise SettingError(
            f"prior {name!r} is not estimated from an image: choose "
            f"{' or '.join(FROM_EXEMPLAR)}, or omit the exemplar"
        )
    image, _ = to_tensor(exemplar)
    keep = None if keep is None else numbers(keep, "keep")
    if keep is not None and keep.shape[-2:] != image.shape[-2:]:
        raise ValueError(
            f"keep must have the size of the exemplar {tuple(image.shape[-2:])}, got shape "
            f"{tuple(keep.shape)}"
        )
    return lookup(PRIORS, name, "prior").from_exemplar(image, keep, **settings).eval()


def read_exemplar(
    name: str, file: Path, max_pixels: int = MAX_PIXELS, **settings: Any
) -> tuple[nn.Module, ImageFile]:
    """Estimates a prior from an image file, from its opaque part if it has an alpha channel.

    Arguments:
        name: See `estimate_prior`.
        file: Image file.
        max_pixels: A file with more pixels is refused.
        settings: See `estimate_prior`.

    Returns:
        The prior and the image, without its alpha channel.

    Raises:
        ImageError: The file cannot be read, or has no opaque pixel.
        SettingError: The prior is not of this kind.
    """
    image = read_image(file, max_pixels)
    alpha = image.alpha
    keep = None if alpha is None or (alpha >= 0.5).all() else alpha >= 0.5
    try:
        prior = estimate_prior(name, image.pixels, keep, **settings)
    except SettingError:
        raise
    except ValueError as error:
        raise ImageError(f"{file}: {error}") from error
    return prior, replace(image, alpha=None)


def draw_texture(
    prior: Any,
    size: Sequence[int],
    method: Literal["adsn", "rpn"] = "adsn",
    seed: int = 0,
) -> Tensor:
    """Draws one texture, without the white noise component of the prior.

    Arguments:
        prior: A texture prior.
        size: Height and width in pixels, smaller or larger than the exemplar.
        method: "adsn" (asymptotic discrete spot noise) draws from the Gaussian distribution;
            "rpn" (random phase noise) keeps the modulus of the spectrum and draws the phases
            only.
        seed: Seed.

    Returns:
        Image, shape (1, C, *size), clipped to [0, 1].
    """
    shape = torch.Size((1, prior.channels, *size))
    like = prior.texton.new_zeros(()).expand(1, 1, *prior.torus(shape))
    return prior.synthesise(Noise(seed, [(0, *DRAW)]).normal(like), shape, method).clamp(0, 1)


def compute_prior(
    name: str,
    data: list[Path],
    images: Tensor | None,
    seed: int,
    max_pixels: int = MAX_PIXELS,
    **settings: Any,
) -> nn.Module:
    """Estimates a prior from images, without training.

    Arguments:
        name: Name in the registry, one of FITTED.
        data: Sources of the images; only the first is read, and only if `images` is None.
        images: Images of one size, (N, C, H, W) in [0, 1]; None to estimate from one file.
        seed: Seed of a randomised estimator.
        max_pixels: A file with more pixels is refused.
        settings: Arguments of the estimator.

    Raises:
        ValueError: The images or the settings are not suitable for the prior.
    """
    if images is None:
        return read_exemplar(name, data[0], max_pixels, **settings)[0]
    cls = lookup(PRIORS, name, "prior")
    if "generator" in inspect.signature(cls.from_images).parameters:
        settings["generator"] = torch.Generator().manual_seed(seed)
    return cls.from_images(images, **settings).eval()


def save_prior(name: str, prior: Any, out: Path, about: dict[str, Any]) -> None:
    """Writes a computed prior as a checkpoint."""
    save_checkpoint(out, name, prior.config, prior.state_dict(), about=about)
