"""Mean and standard deviation of the samples of many images, as they come, without keeping them.

    m <- m + (x - m) / n,    s <- s + (x - m_old) (x - m)

References:
    Note on a Method for Calculating Corrected Sums of Squares and Products, Welford, 1962.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Tally:
    """Running mean and variance of every image.

    Arguments:
        images: Number of images.
        keep: Whether to keep the samples themselves, for `samples` and `quantiles`.
    """

    def __init__(self, images: int, keep: bool) -> None:
        self.keep = keep
        self._counts = [0] * images
        self._means: list[Tensor | float] = [0.0] * images
        self._squares: list[Tensor | float] = [0.0] * images
        self._kept: list[list[Tensor]] = [[] for _ in range(images)]

    def add(self, image: int, x: Tensor) -> None:
        """One more sample of an image, shape (C, H, W)."""
        self._counts[image] += 1
        before = x - self._means[image]
        self._means[image] = self._means[image] + before / self._counts[image]
        self._squares[image] = self._squares[image] + before * (x - self._means[image])
        if self.keep:
            self._kept[image].append(x)

    @property
    def mean(self) -> Tensor:
        """Mean of the samples, shape (B, C, H, W)."""
        return torch.stack(self._means)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the samples (divided by count - 1), shape (B, C, H, W)."""
        both = zip(self._squares, self._counts, strict=True)
        return torch.stack([square / (count - 1) for square, count in both]).sqrt()

    @property
    def samples(self) -> Tensor:
        """All samples in the order they came, shape (B, K, C, H, W); only if they were kept."""
        return torch.stack([torch.stack(kept) for kept in self._kept])

    def quantiles(self, levels: Sequence[float]) -> dict[float, Tensor]:
        """Quantiles per pixel, each of shape (B, C, H, W), interpolated linearly.

        `torch.quantile` has a limit to the size of its input: an image at a time.
        """
        found = [
            [torch.stack(kept).double().quantile(q, dim=0).float() for kept in self._kept]
            for q in levels
        ]
        return {q: torch.stack(images) for q, images in zip(levels, found, strict=True)}
