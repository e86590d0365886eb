"""Masks for inpainting: random missing pixels and rectangular holes, and their growth."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genprior.core.random_streams import MASK, Noise
from genprior.core.tensors import numbers


def random_keep(
    shape: Sequence[int], missing: float, seed: int | Sequence[torch.Generator] = 0
) -> Tensor:
    """Draws a mask of known pixels with random missing ones, the same in all channels.

    Arguments:
        shape: Shape (B, C, H, W) of the images.
        missing: Fraction of missing pixels, in (0, 1). Every image has exactly this fraction of
            missing pixels, rounded, with at least one missing and at least one known pixel.
        seed: Image i depends only on (seed, i); or one random generator per image.

    Returns:
        True where a pixel is known, shape (B, 1, H, W).

    Raises:
        ValueError: The fraction is not inside (0, 1), the images have a single pixel, or the
            number of generators is not B.

    >>> random_keep((1, 3, 10, 10), missing=0.9).sum().item()
    10
    """
    batch, _, height, width = shape
    pixels = height * width
    if not 0 < missing < 1:
        raise ValueError(
            f"the fraction of missing pixels must be above 0 and below 1, got {missing}: "
            f"0.5 removes half of them"
        )
    if pixels < 2:
        raise ValueError(f"an image must have at least 2 pixels, got {height}x{width}")
    if isinstance(seed, int):
        generators = Noise(seed, [(i, *MASK) for i in range(batch)]).generators
    else:
        generators = seed
    if len(generators) != batch:
        raise ValueError(f"pass one generator for each of {batch} images, got {len(generators)}")
    count = min(max(round(missing * pixels), 1), pixels - 1)
    keep = torch.ones(batch, pixels, dtype=torch.bool)
    for row, generator in zip(keep, generators, strict=True):
        row[torch.randperm(pixels, generator=generator)[:count]] = False
    return keep.reshape(batch, 1, height, width)


def box_hole(
    shape: Sequence[int], height: int, width: int, position: tuple[int, int] | None = None
) -> Tensor:
    """Returns a mask of a rectangular hole; `~box_hole(...)` are the pixels to keep.

    Arguments:
        shape: Shape (B, C, H, W) of the images.
        height: Height of the box in pixels.
        width: Width of the box in pixels.
        position: Row and column of its top left pixel; None centres the box.

    Returns:
        True inside the box, shape (B, 1, H, W).

    Raises:
        ValueError: The box is empty or not inside the image.

    >>> box_hole((1, 1, 3, 4), 1, 2)[0, 0].int().tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    batch, _, rows, columns = shape
    if height < 1 or width < 1:
        raise ValueError(f"the box must be at least 1x1 pixels, got {height}x{width}")
    top, left = position or ((rows - height) // 2, (columns - width) // 2)
    if top < 0 or left < 0 or top + height > rows or left + width > columns:
        raise ValueError(
            f"the box must be inside the image of {rows}x{columns} pixels, got a box of "
            f"{height}x{width} at row {top}, column {left}: make it smaller or move it"
        )
    hole = torch.zeros(batch, 1, rows, columns, dtype=torch.bool)
    hole[..., top : top + height, left : left + width] = True
    return hole


def grown(keep: Tensor, distance: float) -> Tensor:
    """Returns a mask of known pixels whose holes have grown by a distance on all sides.

    Arguments:
        keep: True where a pixel is known, shape (..., H, W).
        distance: In pixels, Euclidean, >= 0.

    Returns:
        Of the shape of `keep`, bool.

    >>> grown(~box_hole((1, 1, 1, 6), 1, 1, (0, 1)), 2)[0, 0].int().tolist()
    [[0, 0, 0, 0, 1, 1]]
    """
    keep = keep.bool()
    if distance == 0:
        return keep
    from scipy.ndimage import distance_transform_edt  # slow to import

    masks = [
        torch.from_numpy(distance_transform_edt(mask.numpy()) > distance) if not mask.all()
        else mask
        for mask in keep.cpu().flatten(0, -3)
    ]
    return torch.stack(masks).reshape(keep.shape).to(keep.device)


def hole_of(mask: Any) -> Tensor:
    """Returns the hole of a mask, as in files: the pixels that are True or at least half white.

    Arguments:
        mask: Tensor, array, list or grey Pillow image: bool; floats in [0, 1]; or integers, of
            which the largest is 1, 255 or 65535 (white).

    Returns:
        True in the hole, of the shape of the mask.

    Raises:
        ValueError: The mask has other values, or is a Pillow image with colours or alpha.

    >>> hole_of([[0, 255, 127]]).tolist()
    [[False, True, False]]
    """
    mode = getattr(mask, "mode", "L")
    if isinstance(mode, str) and mode not in ("1", "L", "I", "I;16", "F"):
        raise ValueError(
            f"a mask must be a grey image, got a Pillow image of mode {mode}: give "
            f"mask.convert('L'), or its alpha channel"
        )
    values = numbers(mask, "mask")
    if values.dtype == torch.bool:
        return values
    white = 1.0
    if not values.is_floating_point():
        values = values.long()
        white = next((top for top in (1, 255) if values.numel() and values.max() <= top), 65535)
    if not ((values >= 0) & (values <= white)).all():
        raise ValueError(
            "a mask must hold bools, floats in [0, 1], or integers up to 1, 255 or 65535 (white)"
        )
    return 2 * values >= white


def with_axes(mask: Tensor, name: str) -> Tensor:
    """Returns a mask as (batch or 1, channels or 1, height, width).

    Arguments:
        mask: Shape (H, W), (H, W, 1), (B, H, W) or (B, C, H, W).
        name: Its name in the message.

    Raises:
        ValueError: It has another shape.
    """
    if mask.ndim == 2:
        return mask[None, None]
    if mask.ndim == 3:
        channel_last = mask.shape[-1] == 1 < len(mask)
        return mask[None, None, ..., 0] if channel_last else mask[:, None]
    if mask.ndim != 4:
        raise ValueError(
            f"{name} must have shape (batch or 1, channels or 1, height, width), (height, width), "
            f"(height, width, 1) or (batch, height, width), got {tuple(mask.shape)}"
        )
    return mask
