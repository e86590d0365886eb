"""Matrices of one-dimensional filters, with a boundary rule for pixels outside the image."""

import torch
from torch import Tensor


def fold_index(index: Tensor, size: int, boundary: str) -> Tensor:
    """Maps positions, also outside the image, to pixels inside it.

    Arguments:
        index: Positions, any integers.
        size: Number of pixels; positions 0 to size - 1 are inside.
        boundary: "circular" (a b c | a b c), "reflect" (c b | a b c | b a), "symmetric"
            (b a | a b c | c b) or "replicate" (a a | a b c | c c).
    """
    if boundary == "circular":
        return index % size
    if boundary == "replicate":
        return index.clamp(0, size - 1)
    if boundary == "symmetric":
        index = index % (2 * size)
        return torch.minimum(index, 2 * size - 1 - index)
    period = max(2 * (size - 1), 1)
    index = index % period
    return torch.minimum(index, period - index)


def filter_matrix(positions: Tensor, weights: Tensor, size: int, boundary: str) -> Tensor:
    """Returns the matrix whose row i weights the pixels at positions[i].

    Arguments:
        positions: Integer positions, shape (rows, taps).
        weights: Weights of the taps, shape (..., taps).
        size: Number of pixels.
        boundary: See `fold_index`.

    Returns:
        Matrices (..., rows, size).
    """
    shape = (*weights.shape[:-1], *positions.shape)
    matrix = torch.zeros(*shape[:-1], size, dtype=weights.dtype)
    index = fold_index(positions, size, boundary).expand(shape)
    return matrix.scatter_add_(-1, index, weights[..., None, :].expand(shape))
