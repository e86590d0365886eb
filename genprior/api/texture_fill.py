"""Texture for wide holes: differences of neighbours from patches of the same image.

A point estimate of a wide hole is a blur. Its texture comes from patches of the known part: the
hole gets the differences of neighbours that the patches have, and tones between those of the
estimate and of the patches.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.patch_match import Fill as PatchFill
from genprior.core.patch_match import fill_from_patches
from genprior.core.poisson_blending import screened_poisson
from genprior.core.random_streams import TEXTURE, Noise
from genprior.inverse.execution.hole_windows import around, cut
from genprior.operators.base import Operator

Fill = Literal["smooth", "texture", "auto"]
FILLS = ("smooth", "texture", "auto")
# Distance to the known part, in pixels, that a wide hole exceeds somewhere. At 7 to 9 pixels the
# estimate of a hole of 64 x 64 pixels has 14 % of the true gradients (hqs, six training photos).
WIDE = 8
# Distance to a wide hole, in pixels, within which patches are searched.
SURROUNDINGS = 256
# Share of an image, or of the surroundings of a wide hole, above which a hole is too large for
# "auto": the search takes 0.4 ms a pixel, and copies repeat.
LARGEST = 0.5
# Mismatch of the copied patches, in image units, above which they are doubtful.
DOUBTFUL = 0.1
# Weight of the tones against the differences of the patches, see `screened_poisson`.
SCREENING = 0.03


def check_fill(fill: Fill, operator: Operator) -> None:
    """Checks that a way to fill holes exists and suits the operator.

    Raises:
        SettingError: The operator is not one of inpainting, or `fill` does not exist.
    """
    if fill not in FILLS:
        raise SettingError(f"fill must be one of {', '.join(FILLS)}, got {fill!r}")
    if fill != "smooth" and not _has_holes(operator):
        raise SettingError(
            f"fill={fill!r} is for holes that are the same in all channels, and the operator is "
            f"{type(operator).__name__}: use fill='smooth'"
        )


def choose_fill(
    fill: Fill | None, default: bool, textured: bool, operator: Operator
) -> Fill:
    """Returns how holes are filled.

    Arguments:
        fill: What the user wants. None is "auto" for the point estimate of a default solver, else
            "smooth": the result is that of the solver.
        default: Whether the user left the choice of the solver to genprior.
        textured: Whether the solver's images have texture of their own, as samples do.
        operator: The operator.

    Raises:
        SettingError: See `check_fill`.
    """
    if fill is None:
        fill = "auto" if default and not textured and _has_holes(operator) else "smooth"
    check_fill(fill, operator)
    return fill


def add_texture(
    x: Tensor, operator: Operator, fill: Fill, seed: int, keys: Sequence[tuple[int, int]]
) -> tuple[Tensor, dict[int, str]]:
    """Adds the texture of the known part to holes of restored images.

    Arguments:
        x: Restored images, shape (B, C, H, W).
        operator: Inpainting operator; the holes are the same in all channels.
        fill: "texture" for all holes; "auto" for those that have a pixel farther than `WIDE`
            pixels from the known part, if the patches resemble their surroundings and there are
            more known pixels than unknown ones; "smooth" for none.
        seed, keys: The search of row i depends on (seed, *keys[i]) only: the number of the image
            and of its sample.

    Returns:
        The images, whose known pixels are unchanged, and reasons for doubt by row.
    """
    if fill == "smooth":
        return x, {}
    known = ~_unknown(x, operator)
    streams = Noise(seed, [(*key, *TEXTURE) for key in keys]).generators
    images, doubts = list(x), {}
    for i, (image, given, stream) in enumerate(zip(x, known, streams, strict=True)):
        textured = ~given if fill == "texture" else _wide(~given)
        if not textured.any():
            continue
        images[i], worst = image.clone(), 0.0
        for rows, columns in map(cut, around(textured, SURROUNDINGS, 1)):
            part = image[:, rows, columns]
            hole, known_part = textured[rows, columns], given[rows, columns]
            if fill == "auto" and (~known_part).float().mean() > LARGEST:
                doubts[i] = (
                    "the hole is larger than its surroundings, so it is filled smoothly: "
                    "fill='texture' copies patches into it, which takes long"
                )
                continue
            found = fill_from_patches(part, known_part, stream)
            worst = max(worst, found.mismatch)
            if found.mismatch < (torch.inf if fill == "texture" else DOUBTFUL):
                images[i][:, rows, columns] = blended(part, found, hole, known_part)
        if worst > DOUBTFUL:
            doubts[i] = _doubt(worst)
    return torch.stack(images), doubts


def blended(image: Tensor, found: PatchFill, hole: Tensor, known: Tensor) -> Tensor:
    """Returns an image with the texture of patches in its hole.

    The tones are the mean of those of the image and of the patches: its error is smaller than that
    of either.

    Arguments:
        image: Shape (C, H, W).
        found: The hole filled with patches.
        hole: True where texture is added, shape (H, W).
        known: Known pixels, shape (H, W), whose range of values the hole keeps.
    """
    tones = torch.where(hole, (image + found.image) / 2, image)
    differences = found.down[None], found.right[None]
    filled = screened_poisson(tones[None], hole[None, None], *differences, SCREENING)[0]
    low, high = image[:, known].aminmax()
    return torch.where(hole, filled.clamp(low, high), image)


def _unknown(y: Tensor, operator: Operator) -> Tensor:
    """Returns the unknown pixels of every image, (B, H, W)."""
    return operator.mask_unmeasured(torch.ones_like(y))[:, 0] == 0


def _has_holes(operator: Operator) -> bool:
    return operator.is_mask and not operator.is_identity and operator.measures_images


def _wide(hole: Tensor) -> Tensor:
    """Returns the connected parts of a hole (H, W) that are wide."""
    from scipy.ndimage import distance_transform_edt, label, maximum  # slow to import

    mask = hole.cpu().numpy()
    parts, count = label(mask)
    depth = maximum(distance_transform_edt(mask), parts, range(count + 1))
    wide = torch.as_tensor(depth) > WIDE
    wide[0] = False
    return wide[torch.from_numpy(parts).long()].to(hole.device)


def _doubt(mismatch: float) -> str:
    larger = "a larger model may do better: --prior FILE, FOLDER or hf:ORG/NAME"
    if mismatch == torch.inf:
        return f"no patch of 3x3 pixels is known, so the hole has no texture; {larger}"
    return (
        f"no known patch resembles the surroundings of the hole (they differ by {mismatch:.2f}, "
        f"in units of [0, 1]): check the result; {larger}"
    )
