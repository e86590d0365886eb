"""Tiled evaluation of a denoiser on large images, with overlap and blending.

    D(x) = sum_k w_k D(x on tile k),   sum_k w_k = 1

Only the denoiser is tiled: the solver's state and the operator cover the whole image. The data
are fitted across tiles at every step, and no seams build up, as they do if tiles are restored one
by one. Tiles begin at multiples of the prior's stride, since a network that halves the resolution
is equivariant only to such shifts.
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genprior.priors.base import Denoiser

Tile = tuple[slice, slice]
OVERLAP = 128
SMALLEST = 64


class Tiled(Denoiser):
    """A denoiser that is evaluated in overlapping tiles.

    At each inner edge of a tile the outer quarter of the overlap is discarded, and the next half
    is blended with the neighbour. With the default overlap of 128 pixels, the result of the
    shipped network differs by less than 1/255 from that on the whole image, at every noise level.

    Arguments:
        prior: The denoiser.
        side: Largest height and width of a tile in pixels, >= 64.

    Raises:
        ValueError: `side` is too small.
    """

    def __init__(self, prior: Denoiser, side: int) -> None:
        if side < SMALLEST:
            raise ValueError(f"tiles must have at least {SMALLEST} pixels a side, got {side}")
        self.prior, self.side = prior, side
        self.receptive_radius, self.stride = prior.receptive_radius, prior.stride
        self.is_inpainter, self.symmetries = prior.is_inpainter, prior.symmetries
        self.is_unrolled = prior.is_unrolled

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self._in_tiles(lambda x: self.prior.denoise(x, sigma), x)

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        return self._in_tiles(lambda x, u: self.prior.denoise_masked(x, sigma, u), x, unknown)

    def denoise_unrolled(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self._in_tiles(lambda x: self.prior.denoise_unrolled(x, sigma), x)

    def _in_tiles(self, run: Callable[..., Tensor], x: Tensor, *maps: Tensor) -> Tensor:
        if max(x.shape[-2:]) <= self.side:
            return run(x, *maps)

        def window(tile: Tile) -> Tensor:
            parts = [t[(..., *tile)] for t in (x, *maps)]
            if torch.is_grad_enabled() and x.requires_grad:
                # otherwise the backward pass would hold the activations of all tiles at once
                return checkpoint(run, *parts, use_reentrant=False)
            return run(*parts)

        return blended(window, torch.zeros_like(x), self.side, self.stride)


def blended(run: Callable[[Tile], Tensor], whole: Tensor, side: int, stride: int) -> Tensor:
    """Returns the weighted sum over tiles of the results of `run`.

    Arguments:
        run: Maps a tile (rows, columns) to its images.
        whole: Zeros of the shape (B, C, H, W) of the result; overwritten with the result.
        side: Largest height and width of a tile.
        stride: Tiles begin at multiples of this.
    """
    overlap = shared(side)
    rows, columns = (spans(length, side, overlap, stride) for length in whole.shape[-2:])
    for (i, (top, bottom)), (j, (left, right)) in product(enumerate(rows), enumerate(columns)):
        tile = slice(top, bottom), slice(left, right)
        w = blend(rows, i, overlap, whole)[:, None] * blend(columns, j, overlap, whole)
        whole[(..., *tile)] += w * run(tile)
    return whole


def shared(side: int) -> int:
    """Returns the overlap in pixels of neighbouring tiles of the given side."""
    return min(OVERLAP, side // 2)


def spans(length: int, side: int, overlap: int, stride: int = 1) -> list[tuple[int, int]]:
    """Returns the fewest tiles of an axis, nearly equal, that begin at multiples of `stride`.

    Arguments:
        length: Pixels of the axis.
        side: Largest side of a tile, more than `overlap + stride`.
        overlap: Overlap of neighbouring tiles in pixels.
        stride: See `Denoiser`.

    >>> spans(1000, side=400, overlap=100, stride=8)
    [(0, 332), (232, 564), (464, 796), (696, 1000)]
    """
    if length <= side:
        return [(0, length)]
    largest_step = (side - overlap) // stride * stride
    count = -(-(length - overlap) // largest_step)
    step = -(-(length - overlap) // (count * stride)) * stride
    starts = range(0, length - overlap, step)
    return [(start, min(start + step + overlap, length)) for start in starts]


def blend(tiles: list[tuple[int, int]], k: int, overlap: int, like: Tensor) -> Tensor:
    """Returns the weights of tile k along an axis, in the type of `like`; all tiles sum to 1."""
    start, end = tiles[k]
    centres = torch.arange(start, end, dtype=like.dtype, device=like.device) + 0.5

    def ramp(begin: int) -> Tensor:
        return ((centres - begin) / overlap * 2 - 0.5).clamp(0, 1)

    w = ramp(start) if k > 0 else torch.ones_like(centres)
    return w * (1 - ramp(tiles[k + 1][0])) if k + 1 < len(tiles) else w
