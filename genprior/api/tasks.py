"""Operators for pictures that come from files.

Each function takes the settings of a task and returns a builder: (pictures of one size,
whether they are clean) -> operator. A picture that is not clean is the measurement itself.
"""

import functools
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import deepinv
import torch

from genprior.api.factory import as_operator
from genprior.core.errors import ImageError, SettingError
from genprior.io.images import ImageFile, image_files, read_image, read_mask
from genprior.io.limits import KERNEL_PIXELS, MAX_PIXELS
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel, motion_kernel
from genprior.operators.masks import box_hole, random_keep
from genprior.operators.superres import SuperResolution

# What a physics of deepinv fails with that cannot be made, or not for these images.
FAILURES = (AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError,
            ValueError)
Build = Callable[[list[ImageFile], bool], Operator]


def inpainting(
    mask: tuple[str, Any],
    invert: bool = False,
    seed: int | Sequence[torch.Generator] = 0,
    max_pixels: int = MAX_PIXELS,
) -> Build:
    """Missing pixels.

    Arguments:
        mask: ("alpha", None), ("random", share missing), ("box", (height, width)) or
            ("file", path of an image whose white pixels are missing, or of a folder that holds
            one for every picture, of its name and in its subfolder).
        invert: Swap missing and known.
        seed: Seed of random masks, which depend on nothing else; or one random generator for
            each picture.
        max_pixels: Larger mask files are refused.
    """
    kind, value = mask
    text = f"box={value[0]}x{value[1]}" if kind == "box" else value or kind

    def keep(picture: ImageFile, seed: int | Sequence[torch.Generator]) -> torch.Tensor:
        pixels = picture.pixels
        if kind == "file":
            file = _mask_of(value, picture.name) if value.is_dir() else value
            hole = read_mask(file, max_pixels)
            if hole.shape[-2:] != pixels.shape[-2:]:
                raise ImageError(
                    f"the mask {file} is {_size(hole)} and the image {_size(pixels)} "
                    f"(width x height): make them equal"
                )
            known = ~hole
        elif kind == "alpha":
            if picture.alpha is None:
                raise ImageError(
                    "the image has no alpha channel to tell what is missing: give --mask FILE, "
                    "random=0.5 or box=48x48"
                )
            known = picture.alpha >= 0.5
        elif kind == "random":
            known = random_keep((1, 1, *pixels.shape[-2:]), value, seed)
        else:
            known = ~box_hole((1, 1, *pixels.shape[-2:]), *value)
        known = ~known.bool() if invert else known.bool()
        for empty, what in ((known.all(), "nothing is missing"), (~known.any(), "all is missing")):
            if empty:
                raise ImageError(
                    f"{what} by the mask {text}: white (or transparent) is filled in, "
                    f"the rest is kept; --invert-mask swaps the two"
                )
        return known

    def build(pictures: list[ImageFile], clean: bool) -> Operator:
        seeds = [seed] * len(pictures) if isinstance(seed, int) else [[g] for g in seed]
        return Inpainting(torch.cat([keep(*pair) for pair in zip(pictures, seeds, strict=True)]))

    return build


def _mask_of(folder: Path, name: Path) -> Path:
    """The mask of a picture in a folder of masks: of the same name, but for the suffix."""
    below = folder / name.parent
    masks = [p for p in (image_files(below) if below.is_dir() else ()) if p.stem == name.stem]
    masks = [p for p in masks if p.name == name.name] or masks
    if len(masks) != 1:
        raise ImageError(
            f"there are {len(masks)} masks for it in {folder}: there must be one, such as "
            f"{below / name.stem}.png"
        )
    return masks[0]


def blurring(
    gaussian: float | None = None,
    motion: tuple[float, float] | None = None,
    kernel: Path | None = None,
    boundary: Literal["valid", "reflect", "replicate", "circular"] = "valid",
    max_pixels: int = MAX_PIXELS,
) -> Build:
    """A known blur: exactly one of `gaussian` (std), `motion` (length, angle), `kernel` (file).

    Kernels of more than `max_pixels` are refused, as are those that are larger than any blur, or
    than the picture.

    Raises:
        ValueError: The blur is none: an image that cannot be read or is black, for one.
    """
    width = max(8 * (gaussian or 0), motion[0] if motion else 0)  # to 4 standard deviations
    if KERNEL_PIXELS**0.5 < width < math.inf:
        raise SettingError(f"a blur {width:.0f} pixels wide is wider than any: is it in pixels?")
    if gaussian is not None:
        weights = gaussian_kernel(gaussian)
    elif motion is not None:
        weights = motion_kernel(*motion)
    else:
        weights = read_image(kernel, min(max_pixels, KERNEL_PIXELS)).pixels.mean(dim=1)[0]
    try:
        operator = Blur(weights, boundary)
    except ValueError as error:
        raise ImageError(f"{kernel}: {error}" if kernel else str(error)) from error

    def build(pictures: list[ImageFile], clean: bool) -> Operator:
        for picture in pictures:
            if any(k > n for k, n in zip(weights.shape, picture.pixels.shape[-2:], strict=True)):
                raise ImageError(
                    f"the blur kernel must not be larger than the image: the kernel is "
                    f"{_size(weights)}, the image {_size(picture.pixels)} (width x height): "
                    f"crop the kernel"
                )
        return operator

    return build


def enlarging(
    factor: int,
    kernel: Literal["bicubic", "box", "gaussian"] = "bicubic",
    std: float | None = None,
    boundary: Literal["symmetric", "reflect", "circular"] = "symmetric",
) -> Build:
    """Super-resolution by a whole factor."""

    def build(pictures: list[ImageFile], clean: bool) -> Operator:
        height, width = pictures[0].pixels.shape[-2:]
        size = (height, width) if clean else (height * factor, width * factor)
        return SuperResolution(factor, kernel, std, boundary, image_size=size)

    return build


def foreign(name: str, settings: Mapping[str, Any], seed: int = 0) -> Build:
    """A linear physics of deepinv, the same for all pictures of a size.

    Arguments:
        name: Its class in `deepinv.physics`.
        settings: Arguments of that, but for `img_size` and `rng`, which are given to those that
            take them.
        seed: Of what is random in it.

    Raises:
        SettingError: There is no such physics, or it does not take the arguments.
    """
    known = _linear_physics()
    if name not in known:
        raise SettingError(
            f"deepinv has no linear physics {name!r}: choose one of {', '.join(known)}"
        )
    taken = {
        key for key, parameter in inspect.signature(known[name]).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    for setting in settings:
        if setting not in taken:
            raise SettingError(
                f"deepinv's {name} has no argument {setting!r}, it has {', '.join(sorted(taken))}"
            )

    def build(pictures: list[ImageFile], clean: bool) -> Operator:
        shape = tuple(pictures[0].pixels.shape[1:])
        return as_operator(_physics(name, json.dumps(dict(settings)), shape, seed), shape)

    return build


def _linear_physics() -> dict[str, type]:
    """Those that can be named: not the classes that others are built from."""
    linear = deepinv.physics.LinearPhysics
    return {
        name: cls for name, cls in vars(deepinv.physics).items()
        if isinstance(cls, type) and issubclass(cls, linear)
        and not name.endswith(("Physics", "PhysicsCropper", "MultiScaler"))
    }


@functools.lru_cache(maxsize=4)  # some take minutes to be made
def _physics(name: str, settings: str, shape: tuple[int, int, int], seed: int) -> object:
    cls = getattr(deepinv.physics, name)
    given = {"img_size": shape, "rng": torch.Generator().manual_seed(seed)}
    taken = inspect.signature(cls).parameters
    given = {key: value for key, value in given.items() if key in taken}
    try:
        physics = cls(**given | json.loads(settings))
        y = physics.A(torch.full((1, *shape), 0.5))
    except FAILURES as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingError(f"deepinv's {name} does not work with {settings} on images of shape "
                           f"{shape}: {reason}") from error
    if not isinstance(y, torch.Tensor):
        raise SettingError(f"deepinv's {name} measures several things at once: choose another")
    return physics


def denoising() -> Build:
    """Noise only."""
    return lambda pictures, clean: Denoising()


def _size(x: torch.Tensor) -> str:
    return f"{x.shape[-1]}x{x.shape[-2]}"
