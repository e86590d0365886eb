"""Reproducible random streams: white noise that depends on (seed, image, sample) only.

An image gets the same noise alone or in a batch, on the CPU or a GPU (numbers are drawn on
the CPU and copied). The global random state is never touched.

A key names the image and the purpose of the numbers:

    (image, k)               sample k of a restoration
    (image, k, WINDOW + w)   window w of sample k, if it is restored in windows
    (image, *MEASUREMENT)    the noise of a measurement
    (image, *DRAW)           unconditional samples of a prior
    (image, *MASK)           the missing pixels of a random mask
    (image, k, *TEXTURE)     the search of patches for the holes of sample k

Trailing zeros do not count: 5, (5, 0) and (5, 0, 0) are the same stream.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

# Numbers per thread below which another thread does not pay; they take about a millisecond.
PER_THREAD = 2**17
MEASUREMENT, DRAW, MASK, TEXTURE, WINDOW = (0, 1), (0, 0, 1), (0, 0, 0, 1), (0, 2), 2


def partner(sample: int) -> int | None:
    """Returns the earlier sample whose noise an antithetic sample negates, or None.

    In each group of four, the last two samples are the partners of the first two. So the first
    samples do not depend on the number of samples, and the first two are independent.
    """
    return sample - 2 if sample % 4 >= 2 else None


def partners(samples: int) -> list[tuple[int, int]]:
    """Returns the antithetic pairs among the first `samples` samples."""
    return [(k - 2, k) for k in range(samples) if partner(k) is not None]


def seed_global(seed: int, device: torch.device) -> None:
    """Seeds the global random state of the CPU and of one device.

    `torch.manual_seed` would seed all devices, and `torch.random.fork_rng` of this device would
    not restore the others.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class Noise:
    """Random streams of a batch, one per row.

    Arguments:
        seed: Non-negative integer; 0 is a valid seed.
        keys: One key per row: an integer (the image) or a tuple (image, sample).
        mirrored: For every row, whether its normal numbers are negated (antithetic samples);
            empty for none.

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
        paths = [(key,) if isinstance(key, int) else tuple(key) for key in keys]
        self.images = [path[0] for path in paths]
        streams = {path: _stream(seed, path) for path in dict.fromkeys(paths)}
        self.generators = [streams[path] for path in paths]
        self._streams = list(streams.values())
        index_of = {path: k for k, path in enumerate(streams)}
        self._rows = [index_of[path] for path in paths]
        self._signs = [-1.0 if mirror else 1.0 for mirror in mirrored or [False] * len(paths)]
        self._constants: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def normal(self, like: Tensor) -> Tensor:
        """Returns standard normal numbers of the shape, dtype and device of `like`, (B, ...).

        Raises:
            ValueError: The batch size differs from the number of keys.
        """
        numbers = self._numbers(Tensor.normal_, like)
        if -1.0 not in self._signs:
            return numbers
        signs = self._constant("signs", self._signs, numbers, numbers.dtype)
        return numbers * signs.reshape(-1, *[1] * (numbers.ndim - 1))

    def uniform(self, like: Tensor) -> Tensor:
        """Returns uniform numbers in [0, 1), as `normal` does; they are never mirrored."""
        return self._numbers(Tensor.uniform_, like)

    def select(self, rows: Sequence[int]) -> "Noise":
        """Returns the streams of some rows, which it shares: drawing from one advances both."""
        part = copy.copy(self)
        part._constants = {}
        part.images = [self.images[row] for row in rows]
        part.generators = [self.generators[row] for row in rows]
        used = sorted({self._rows[row] for row in rows})
        part._streams = [self._streams[k] for k in used]
        part._rows = [used.index(self._rows[row]) for row in rows]
        part._signs = [self._signs[row] for row in rows]
        return part

    def _numbers(self, fill: Callable[..., Tensor], like: Tensor) -> Tensor:
        """Draws the numbers of every row; rows with the same key share one draw."""
        if len(like) != len(self._rows):
            raise ValueError(
                f"there are random streams for {len(self._rows)} images, but the batch has "
                f"{len(like)}"
            )
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        shape = len(self._streams), *like.shape[1:]
        with torch.inference_mode(False):  # it is per thread: others could not fill its tensors
            drawn = torch.empty(shape, dtype=dtype, pin_memory=like.is_cuda)
        work = list(zip(drawn.unbind(), self._streams, strict=True))

        def draw(first: int, step: int) -> None:
            for row, generator in work[first::step]:
                fill(row, generator=generator)

        count = min(torch.get_num_threads(), drawn.numel() // PER_THREAD)
        if count > 1:  # torch itself draws in one thread
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(draw, range(count), [count] * count))
        else:
            draw(0, 1)
        numbers = _moved(drawn, like)
        if len(self._streams) == len(self._rows):
            return numbers
        return numbers[self._constant("rows", self._rows, like, torch.int64)]

    def _constant(
        self, name: str, values: Sequence[float], like: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Returns values as a tensor on the device of `like`; it is made once."""
        key = name, like.device, dtype
        if key not in self._constants:
            self._constants[key] = _moved(torch.tensor(values), like, dtype)
        return self._constants[key]


def _stream(seed: int, path: tuple[int, ...]) -> torch.Generator:
    state = np.random.SeedSequence((seed, *path)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _moved(x: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Returns x on the device of `like`, with its dtype unless another is given."""
    if like.is_cuda:  # copies from pinned memory do not block the host
        x = x.pin_memory()
    return x.to(like.device, dtype or like.dtype, non_blocking=like.is_cuda)
