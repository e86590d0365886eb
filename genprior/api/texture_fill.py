"""Texture for wide holes: patches of the same image are copied, and their seams are left open.

The copies become known pixels; what stays missing are the pixels at visible seams, between the
copies and around them. Any solver then restores these as it restores scratches.
"""

from typing import Literal

import torch
from scipy.ndimage import distance_transform_edt, label, maximum
from torch import Tensor

from genprior.api.factory import make_operator
from genprior.core.errors import SettingError
from genprior.core.patch_match import fill_from_patches
from genprior.core.random_streams import TEXTURE, Noise
from genprior.operators.base import Operator

Fill = Literal["smooth", "texture", "auto"]
FILLS = ("smooth", "texture", "auto")
# Distance to the known part, in pixels, that a wide hole exceeds somewhere.
WIDE = 12
# Mismatch of the copied patches, in image units, above which they are doubtful.
DOUBTFUL = 0.1


def fill_with_texture(
    y: Tensor, operator: Operator, fill: Fill, seed: int, numbers: list[int]
) -> tuple[Tensor, Operator, tuple[str, ...]]:
    """Fills holes with patches of the known part, except for the visible seams.

    Arguments:
        y: Measurements, shape (B, C, H, W).
        operator: Inpainting operator; the holes are the same in all channels.
        fill: "texture" fills all holes; "auto" only those that have a pixel farther than 12
            pixels from the known part.
        seed, numbers: The search of image i depends on (seed, numbers[i]) only.

    Returns:
        The measurements with the copies, the operator that measures them, and warnings.

    Raises:
        SettingError: The operator is not one of inpainting, or `fill` does not exist.
    """
    if fill not in FILLS:
        raise SettingError(f"fill must be one of {', '.join(FILLS)}, got {fill!r}")
    if not operator.is_mask or operator.is_identity or not operator.measures_images:
        raise SettingError(
            f"fill={fill!r} is for holes that are the same in all channels, and the operator is "
            f"{type(operator).__name__}: use fill='smooth'"
        )
    known = operator.mask_unmeasured(torch.ones_like(y))[:, 0] > 0
    streams = Noise(seed, [(number, *TEXTURE) for number in numbers]).generators
    images, masks, warnings = [], [], []
    for i, (image, given, stream) in enumerate(zip(y, known, streams, strict=True)):
        copied = ~given if fill == "texture" else _wide(~given)
        if copied.any():
            filled = fill_from_patches(image, given, stream)
            copied &= ~filled.seams
            warnings += _doubts(i, filled.mismatch)
            if filled.mismatch < torch.inf:
                image, given = torch.where(copied, filled.image, image), given | copied
        images.append(image)
        masks.append(given)
    keep = torch.stack(masks)[:, None]
    return torch.stack(images), make_operator("inpaint", keep=keep), tuple(warnings)


def _wide(hole: Tensor) -> Tensor:
    """Returns the connected parts of a hole (H, W) that are wide."""
    mask = hole.cpu().numpy()
    parts, count = label(mask)
    depth = maximum(distance_transform_edt(mask), parts, range(count + 1))
    wide = torch.as_tensor(depth) > WIDE
    wide[0] = False
    return wide[torch.from_numpy(parts).long()].to(hole.device)


def _doubts(i: int, mismatch: float) -> list[str]:
    larger = "a larger model may do better: --prior FILE, FOLDER or hf:ORG/NAME"
    if mismatch == torch.inf:
        return [f"image {i}: no patch of 3x3 pixels is known, so no texture was copied; {larger}"]
    if mismatch > DOUBTFUL:
        return [
            f"image {i}: no known patch resembles the surroundings of the hole (they differ by "
            f"{mismatch:.2f}, in units of [0, 1]): check the result; {larger}"
        ]
    return []
