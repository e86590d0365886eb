"""White noise that depends on (seed, image, sample) and on nothing else.

An image gets the same noise alone or in a batch, on the CPU or a GPU (numbers are drawn on
the CPU and moved), and the global random state is never touched.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def partner(sample: int) -> int | None:
    """The earlier sample whose noise an antithetic sample has with the other sign, if any.

    Of each four, the last two are the partners of the first two, so that the first samples are
    the same however many follow, and two are independent.
    """
    return sample - 2 if sample % 4 >= 2 else None


def partners(samples: int) -> list[tuple[int, int]]:
    """The pairs among the first samples."""
    return [(k - 2, k) for k in range(samples) if partner(k) is not None]


def seed_global(seed: int, device: torch.device) -> None:
    """Seeds the global random state of the CPU and of one device.

    `torch.manual_seed` would seed those of all devices, more than `torch.random.fork_rng` of
    this one gives back.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class Noise:
    """One random stream per chain of a batch.

    Arguments:
        seed: Non-negative integer; 0 is a seed as any other.
        keys: One key per chain: an integer (the image) or a tuple (image, sample).
        mirrored: Whether a chain has the normal numbers of its key with the other sign, for every
            chain; none has if it is empty.

    Raises:
        ValueError: The seed is negative.
    """

    def __init__(
        self,
        seed: int,
        keys: Sequence[int | tuple[int, ...]],
        mirrored: Sequence[bool] = (),
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed must be 0 or a positive integer, got {seed}")
        self.images = [key if isinstance(key, int) else key[0] for key in keys]
        self.mirrored = list(mirrored) or [False] * len(keys)
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
        return self._numbers(torch.randn, like, self.mirrored)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers uniform in [0, 1), as `normal`; they are never mirrored."""
        return self._numbers(torch.rand, like, [False] * len(self.generators))

    def _numbers(
        self, draw: Callable[..., Tensor], like: Tensor, negate: Sequence[bool]
    ) -> Tensor:
        if len(like) != len(self.generators):
            raise ValueError(
                f"there is noise for {len(self.generators)} images, asked for {len(like)}"
            )
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        shape = like.shape[1:]
        drawn = (draw(shape, generator=g, dtype=dtype) for g in self.generators)
        numbers = torch.stack([-x if no else x for x, no in zip(drawn, negate, strict=True)])
        if like.is_cuda:  # from pinned memory the copy does not stop the host
            return numbers.pin_memory().to(like, non_blocking=True)
        return numbers.to(like)
