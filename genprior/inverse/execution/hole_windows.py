"""Windows around the holes of a large image: all that has a say in what fills them.

Where a solver puts the known pixels of a noise-free inpainting back at every step (hqs,
diffpir), a pixel of a hole depends on what the denoiser sees from there and on nothing else.
With a margin of the denoiser's reach around the hole the rest of the image need not be computed.
For a solver that only pulls the known pixels to the data (dps, red-diff) this leaves out what
reaches the hole from farther away, by way of known pixels; so does searching latents (jpmap,
glowip), where the pixels around a hole say which they are. Where the prior knows of holes, what
hqs starts from and what posterior-mean gives depend on guesses on a pyramid, whose cells begin
where the window does: in a hole of 40 x 40 pixels by 0.7/255.
"""

from torch import Tensor
from torch.nn.functional import max_pool2d

from genprior.operators.base import Operator
from genprior.priors.base import Decoder, Denoiser

Window = tuple[int, int, int, int]
WORTH = 0.5
CELL = 16


def windows(
    prior: Denoiser | Decoder, operator: Operator, known: Tensor, sigma: Tensor
) -> list[Window]:
    """The parts of an image that a solver has to see; none where that is all of it.

    Arguments:
        prior: The prior.
        operator: What was measured.
        known: Where something was measured, shape (1, ...).
        sigma: Noise level, shape (1,).

    Returns:
        Disjoint windows (top, bottom, left, right); each hole is inside one of them, with a
        margin of the prior's reach. Empty if they would cover more than half of the image, or
        no image was measured.
    """
    if prior.receptive_radius is None or known.ndim != 4 or bool((sigma > 0).any()):
        return []
    hole = (known == 0).any(dim=1)[0]
    found = around(hole, prior.receptive_radius, prior.stride)
    covered = sum((bottom - top) * (right - left) for top, bottom, left, right in found)
    if not found or covered > WORTH * hole.numel() or operator.crop(*cut(found[0])) is None:
        return []
    return found


def cut(window: Window) -> tuple[slice, slice]:
    """Rows and columns of a window, to index with."""
    top, bottom, left, right = window
    return slice(top, bottom), slice(left, right)


def around(hole: Tensor, margin: int, stride: int) -> list[Window]:
    """Disjoint windows that hold all of a hole (H, W), bool, and `margin` pixels around it.

    Multiples of `stride` lie before and behind them, so that the network's grid is that of the
    whole image, be it flipped or not.

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
    return _apart(boxes)


def _apart(boxes: list[Window]) -> list[Window]:
    """Joins windows that meet until none do."""
    apart: list[Window] = []
    for box in sorted(boxes):
        while True:
            meeting = [other for other in apart if _meet(box, other)]
            if not meeting:
                break
            apart = [other for other in apart if other not in meeting]
            tops, bottoms, lefts, rights = zip(box, *meeting, strict=True)
            box = (min(tops), max(bottoms), min(lefts), max(rights))
        apart.append(box)
    return sorted(apart)


def _meet(a: Window, b: Window) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
