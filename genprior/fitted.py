"""Priors that are computed from images in one go instead of being trained."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.checkpoint import save_checkpoint
from genprior.errors import SettingError
from genprior.exemplars import read_exemplar
from genprior.limits import MAX_PIXELS
from genprior.registry import FROM_EXEMPLAR, PRIORS, lookup


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
        data: The files; one picture for a texture.
        images: Images of one size, (N, C, H, W) in [0, 1], for the others.
        seed: Seed of what is random about it.
        max_pixels: A larger picture is refused.
        settings: Arguments of its estimator.

    Raises:
        SettingError: A texture is asked of several pictures.
        ValueError: The images do not do.
    """
    if name in FROM_EXEMPLAR:
        if len(data) != 1 or not data[0].is_file():
            raise SettingError(f"{name} is estimated from one picture: give one image file")
        return read_exemplar(name, data[0], max_pixels, **settings)[0]
    generator = torch.Generator().manual_seed(seed)
    cls = lookup(PRIORS, name, "prior")
    return cls.from_images(images, generator=generator, **settings).eval()


def save_prior(name: str, prior: nn.Module, out: Path, about: dict[str, Any]) -> None:
    """Writes a computed prior as a checkpoint."""
    save_checkpoint(out, name, prior.config, prior.state_dict(), about=about)
