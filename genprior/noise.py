"""White noise that depends on (seed, image, sample) and on nothing else.

An image gets the same noise alone or in a batch, on the CPU or a GPU (numbers are drawn on
the CPU and moved), and the global random state is never touched.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


class Noise:
    """One random stream per chain of a batch.

    Arguments:
        seed: Non-negative integer; 0 is a seed as any other.
        keys: One key per chain: an integer (the image) or a tuple (image, sample).

    Raises:
        ValueError: The seed is negative.
    """

    def __init__(self, seed: int, keys: Sequence[int | tuple[int, ...]]) -> None:
        if seed < 0:
            raise ValueError(f"seed must be 0 or a positive integer, got {seed}")
        self.images = [key if isinstance(key, int) else key[0] for key in keys]
        self.generators = []
        for key in keys:
            entropy = (seed, *((key,) if isinstance(key, int) else key))
            state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
            self.generators.append(torch.Generator().manual_seed(int(state >> np.uint64(1))))

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type and device of `like`, (B, ...).

        Raises:
            ValueError: The batch has not one image per stream.
        """
        return self._numbers(torch.randn, like)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers uniform in [0, 1), as `normal`."""
        return self._numbers(torch.rand, like)

    def _numbers(self, draw: Callable[..., Tensor], like: Tensor) -> Tensor:
        if len(like) != len(self.generators):
            raise ValueError(
                f"there is noise for {len(self.generators)} images, asked for {len(like)}"
            )
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        shape = like.shape[1:]
        numbers = torch.stack([draw(shape, generator=g, dtype=dtype) for g in self.generators])
        if like.is_cuda:  # from pinned memory the copy does not stop the host
            return numbers.pin_memory().to(like, non_blocking=True)
        return numbers.to(like)
