"""Batches of points, such as samples of a density in the plane, for the training of a flow."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genprior.core.errors import ImageError, SettingError

MAX_BYTES = 2**30


class Points:
    """Random points of one or several .npy arrays (N, n) of floats or integers.

    Batch number k is a function of (seed, k) alone, so a resumed training continues with the
    batches of an uninterrupted one.

    Arguments:
        sources: Paths of the arrays; their numbers n must agree.
        seed: Seed of the batches.

    Raises:
        ImageError: A file cannot be read, or its values are not finite.
        SettingError: An array is not of shape (N, n) with N, n >= 1, or the n differ.
    """

    def __init__(self, sources: Sequence[str | Path], seed: int = 0) -> None:
        arrays = [_read(Path(source)) for source in sources]
        widths = sorted({array.shape[1] for array in arrays})
        if len(widths) > 1:
            raise SettingError(f"all points must have the same dimension, got {widths}")
        self.images, self.seed = np.concatenate(arrays), seed
        self.channels = 1

    @property
    def dimension(self) -> int:
        """Numbers of a point."""
        return self.images.shape[1]

    def digest(self) -> str:
        """Returns a digest of the points."""
        return hashlib.sha256(self.images.tobytes()).hexdigest()

    def batch(self, number: int, count: int, rows: slice | None = None) -> Tensor:
        """Returns batch `number` of `count` points, or some rows of it, shape (rows, 1, 1, n)."""
        rng = np.random.default_rng((self.seed, number))
        chosen = self.images[rng.integers(len(self.images), size=count)][rows or slice(None)]
        return torch.from_numpy(chosen)[:, None, None]


def _read(path: Path) -> np.ndarray:
    """Returns an array of points as float32.

    Raises:
        ImageError: It cannot be read, or its values are not finite.
        SettingError: It has another shape.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(f"{path} has more than {MAX_BYTES} bytes: give fewer points")
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path} is not an array of points: {error}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or 0 in array.shape:
        raise SettingError(
            f"{path} must hold points, shape (N, n), got {list(np.shape(array))}: for images "
            f"train another prior"
        )
    if array.dtype.kind not in "fiu":
        raise SettingError(f"{path} must hold numbers, got {array.dtype}")
    points = array.astype(np.float32)
    if not np.isfinite(points).all():
        raise ImageError(f"{path} holds NaN or infinite values: replace them by numbers first")
    return points
