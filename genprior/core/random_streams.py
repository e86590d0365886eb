"""White noise that depends on (seed, image, sample) and on nothing else.

An image gets the same noise alone or in a batch, on the CPU or a GPU (numbers are drawn on
the CPU and moved), and the global random state is never touched.

A key tells the image and what is drawn for it:

    (image, k)               sample k of a restoration
    (image, k, WINDOW + w)   window w of it, if it is restored in windows
    (image, *MEASUREMENT)    the noise of a measurement
    (image, *DRAW)           what a prior draws of itself

Zeros at the end do not count: 5, (5, 0) and (5, 0, 0) are one stream.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

# Numbers that a thread must have to draw to be worth its while: a millisecond of them.
PER_THREAD = 2**17
MEASUREMENT, DRAW, WINDOW = (0, 1), (0, 0, 1), 2


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
        paths = [(key,) if isinstance(key, int) else tuple(key) for key in keys]
        self.images = [path[0] for path in paths]
        streams = {path: _stream(seed, path) for path in paths}
        self.generators = [streams[path] for path in paths]
        self._streams = list(streams.values())
        places = {path: k for k, path in enumerate(streams)}
        self._rows = [places[path] for path in paths]
        self._signs = [-1.0 if mirror else 1.0 for mirror in mirrored or [False] * len(paths)]

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type and device of `like`, (B, ...).

        Raises:
            ValueError: The batch has not one image per stream.
        """
        numbers = self._numbers(Tensor.normal_, like)
        if -1.0 not in self._signs:
            return numbers
        signs = _moved(torch.tensor(self._signs), numbers)
        return numbers * signs.reshape(-1, *[1] * (numbers.ndim - 1))

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers uniform in [0, 1), as `normal`; they are never mirrored."""
        return self._numbers(Tensor.uniform_, like)

    def _numbers(self, fill: Callable[..., Tensor], like: Tensor) -> Tensor:
        """Numbers of every chain, where equal streams are drawn once."""
        if len(like) != len(self._rows):
            raise ValueError(f"there is noise for {len(self._rows)} images, asked for {len(like)}")
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        shape = len(self._streams), *like.shape[1:]
        with torch.inference_mode(False):  # which is of one thread, and its tensors with it
            drawn = torch.empty(shape, dtype=dtype, pin_memory=like.is_cuda)
        work = list(zip(drawn.unbind(), self._streams, strict=True))

        def draw(first: int, step: int) -> None:
            for row, generator in work[first::step]:
                fill(row, generator=generator)

        count = min(torch.get_num_threads(), drawn.numel() // PER_THREAD)
        if count > 1:  # torch draws with one
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(draw, range(count), [count] * count))
        else:
            draw(0, 1)
        numbers = _moved(drawn, like)
        if len(self._streams) == len(self._rows):
            return numbers
        return numbers[_moved(torch.tensor(self._rows), like, torch.int64)]


def _stream(seed: int, path: tuple[int, ...]) -> torch.Generator:
    state = np.random.SeedSequence((seed, *path)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _moved(x: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """x on the device of another, and of its type if no other is given."""
    if like.is_cuda:  # from pinned memory the copy does not stop the host
        x = x.pin_memory()
    return x.to(like.device, dtype or like.dtype, non_blocking=like.is_cuda)
