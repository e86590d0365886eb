"""Priors that are estimated from one picture instead of being loaded, and what they draw."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genprior.arrays import numbers, to_tensor
from genprior.errors import ImageError, SettingError
from genprior.images import Picture, read_image
from genprior.inverse.base import Solver
from genprior.limits import MAX_PIXELS
from genprior.noise import DRAW, Noise
from genprior.parts import make_solver
from genprior.registry import FROM_EXEMPLAR, PRIORS, lookup

BORDER = 3


def estimate_prior(
    name: str, exemplar: Any, keep: Tensor | None = None, **settings: Any
) -> nn.Module:
    """Estimates a prior from one picture.

    Arguments:
        name: "texture".
        exemplar: Tensor (C, H, W) or (1, C, H, W) in [0, 1], numpy (H, W, C) or PIL image;
            see `to_tensor`.
        keep: Where it is known (non-zero), shape (1, 1, H, W); None if it is everywhere.
        settings: Other arguments of the prior, such as `margin` and `floor` of a texture.

    To inpaint, take the solver `make_solver("gaussian", border=3)`: told all
    pixels of the picture that it was estimated from, the law fills its hole with the mean.

    Returns:
        The prior, for images of any size with the channels of the exemplar.

    Raises:
        ValueError: The prior is not of this kind, there are several pictures, none of the
            picture is known, or `keep` is of another size.

    >>> prior = estimate_prior("texture", torch.rand(3, 20, 30), floor=0.0)
    >>> prior.texton.shape
    torch.Size([3, 20, 30])
    """
    if name not in FROM_EXEMPLAR:
        raise SettingError(
            f"prior {name!r} is not estimated from a picture: choose "
            f"{' or '.join(FROM_EXEMPLAR)}, or leave the exemplar out"
        )
    image, _ = to_tensor(exemplar)
    keep = None if keep is None else numbers(keep, "keep")
    if keep is not None and keep.shape[-2:] != image.shape[-2:]:
        raise ValueError(
            f"keep must be of the size of the exemplar {tuple(image.shape[-2:])}, got shape "
            f"{tuple(keep.shape)}"
        )
    return lookup(PRIORS, name, "prior").from_exemplar(image, keep, **settings).eval()


def read_exemplar(
    name: str, file: Path, max_pixels: int = MAX_PIXELS, **settings: Any
) -> tuple[nn.Module, Picture]:
    """Estimates a prior from an image file, from its opaque part if it has an alpha channel.

    Arguments:
        name: See `estimate_prior`.
        file: The file.
        max_pixels: A larger one is refused.
        settings: See `estimate_prior`.

    Returns:
        The prior and the picture, without alpha.

    Raises:
        ImageError: The file cannot be read, or is transparent all over.
        SettingError: The prior is not of this kind.
    """
    picture = read_image(file, max_pixels)
    alpha = picture.alpha
    keep = None if alpha is None or (alpha >= 0.5).all() else alpha >= 0.5
    try:
        prior = estimate_prior(name, picture.pixels, keep, **settings)
    except SettingError:
        raise
    except ValueError as error:
        raise ImageError(f"{file}: {error}") from error
    return prior, replace(picture, alpha=None)


def near_the_hole(name: str, solver: Solver, task: str, prior: str | None) -> Solver:
    """The solver by which a task is done for a prior that may be estimated from one picture.

    Told all pixels of the picture, such a law explains them by repeating that picture, hole
    included. Galerne and Leclaire (2017) tell it those near the hole.

    Arguments:
        name: Name of the solver.
        solver: The solver, which is taken for other tasks and priors.
        task: Name of the task.
        prior: Name of the prior.
    """
    if (task, name) == ("inpaint", "gaussian") and prior in FROM_EXEMPLAR:
        return make_solver(name, border=BORDER)
    return solver


def draw_texture(
    prior: nn.Module,
    size: Sequence[int],
    method: Literal["adsn", "rpn"] = "adsn",
    seed: int = 0,
) -> Tensor:
    """Draws one texture without the white part of its law.

    Arguments:
        prior: A texture.
        size: Height and width in pixels, smaller or larger than the exemplar.
        method: "adsn" is the Gaussian law itself; "rpn" keeps the modulus of the spectrum
            and draws the phases only.
        seed: Seed.

    Returns:
        Image, shape (1, C, *size), clipped to [0, 1].
    """
    shape = torch.Size((1, prior.channels, *size))
    like = prior.texton.new_zeros(()).expand(1, 1, *prior.torus(shape))
    return prior.synthesise(Noise(seed, [(0, *DRAW)]).normal(like), shape, method).clamp(0, 1)
