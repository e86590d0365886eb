"""Windows around the holes of a large image, for noise-free inpainting.

Some solvers (hqs, diffpir) reset the known pixels to the data at every step. There a pixel of a
hole depends only on pixels within the receptive field of the denoiser. With a margin of that
radius around the hole, the rest of the image need not be computed.

For other solvers windows are an approximation. If a solver only pulls the known pixels towards
the data (dps, red-diff), a hole also depends on pixels farther away, through the known pixels.
The same holds for latent optimisation (jpmap, glowip), where the pixels around a hole determine
the latents. With an inpainting prior, the start of hqs and the result of posterior-mean depend on
an initial guess from an image pyramid, whose cells are aligned with the window: in a hole of
40 x 40 pixels this changes the result by 0.7/255.
"""

from torch import Tensor
from torch.nn.functional import max_pool2d

from genprior.operators.base import Operator
from genprior.priors.base import Decoder, Denoiser

Window = tuple[int, int, int, int]
# Largest share of the image that windows may cover.
LARGEST_SHARE = 0.5
# Side of the cells in which holes are located, in pixels.
CELL = 16


def windows(
    prior: Denoiser | Decoder, operator: Operator, known: Tensor, sigma: Tensor
) -> list[Window]:
    """Returns the parts of an image to restore; an empty list means the whole image.

    Arguments:
        prior: The prior.
        operator: The operator.
        known: Nonzero where the image was measured, shape (1, ...).
        sigma: Noise level, shape (1,).

    Returns:
        Disjoint windows (top, bottom, left, right); each hole is inside one of them, with a
        margin of the prior's receptive radius. Empty if they would cover more than half of the
        image, or if the measurement is noisy or not an image.
    """
    if prior.receptive_radius is None or known.ndim != 4 or bool((sigma > 0).any()):
        return []
    hole = (known == 0).any(dim=1)[0]
    found = around(hole, prior.receptive_radius, prior.stride)
    covered = sum((bottom - top) * (right - left) for top, bottom, left, right in found)
    if (
        not found
        or covered > LARGEST_SHARE * hole.numel()
        or operator.crop(*cut(found[0])) is None
    ):
        return []
    return found


def cut(window: Window) -> tuple[slice, slice]:
    """Returns the slices of rows and columns of a window."""
    top, bottom, left, right = window
    return slice(top, bottom), slice(left, right)


def around(hole: Tensor, margin: int, stride: int) -> list[Window]:
    """Returns disjoint windows that cover a hole (H, W), bool, and `margin` pixels around it.

    The distances of a window from all borders of the image are multiples of `stride`, so that the
    network's grid is aligned with that of the whole image, also after a flip.

    >>> import torch
    >>> hole = torch.zeros(100, 100, dtype=torch.bool)
    >>> hole[10, 10] = hole[90, 50:60] = True
    >>> around(hole, margin=8, stride=4)
    [(0, 24, 0, 24), (72, 100, 40, 72)]
    """
    height, width = hole.shape

    def span(begin: int, length: int) -> tuple[int, int]:
        before, after = begin - margin, length - (begin + CELL + margin)
        return max(before, 0) // stride * stride, length - max(after, 0) // stride * stride

    cells = max_pool2d(hole[None, None].float(), CELL, ceil_mode=True)[0, 0].nonzero() * CELL
    boxes = [(*span(top, height), *span(left, width)) for top, left in cells.tolist()]
    return _merged(boxes)


def _merged(boxes: list[Window]) -> list[Window]:
    """Merges overlapping windows until none overlap."""
    merged: list[Window] = []
    for box in sorted(boxes):
        while True:
            overlapping = [other for other in merged if _overlap(box, other)]
            if not overlapping:
                break
            merged = [other for other in merged if other not in overlapping]
            tops, bottoms, lefts, rights = zip(box, *overlapping, strict=True)
            box = (min(tops), max(bottoms), min(lefts), max(rights))
        merged.append(box)
    return sorted(merged)


def _overlap(a: Window, b: Window) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
