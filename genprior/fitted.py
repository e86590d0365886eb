"""Priors that are computed from images in one go instead of being trained."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.checkpoint import save_checkpoint
from genprior.exemplars import read_exemplar
from genprior.limits import MAX_PIXELS
from genprior.registry import PRIORS, lookup


def compute_prior(
    name: str,
    data: list[Path],
    images: Tensor | None,
    seed: int,
    max_pixels: int = MAX_PIXELS,
    **settings: Any,
) -> nn.Module:
    """Computes a prior.

    Arguments:
        name: Name in the registry, one of FITTED.
        data: What the images are from.
        images: Images of one size, (N, C, H, W) in [0, 1]; None for a texture of one picture.
        seed: Seed of what is random about it.
        max_pixels: A larger picture is refused.
        settings: Arguments of its estimator.

    Raises:
        ValueError: The images do not do.
    """
    if images is None:
        return read_exemplar(name, data[0], max_pixels, **settings)[0]
    cls = lookup(PRIORS, name, "prior")
    if "generator" in inspect.signature(cls.from_images).parameters:
        settings["generator"] = torch.Generator().manual_seed(seed)
    return cls.from_images(images, **settings).eval()


def save_prior(name: str, prior: nn.Module, out: Path, about: dict[str, Any]) -> None:
    """Writes a computed prior as a checkpoint."""
    save_checkpoint(out, name, prior.config, prior.state_dict(), about=about)
