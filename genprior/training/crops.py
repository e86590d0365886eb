"""Random crops of image collections, the batches of a training."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genprior.core.errors import ImageError
from genprior.io.datasets import Collection, open_source
from genprior.io.limits import MAX_PIXELS

NATIVE_SHARE = 0.6
# Attempts to draw a crop from an image that is not damaged.
TRIES = 20


@dataclass(frozen=True)
class _CropBox:
    """Index of an image, square in it, quarter turns and flip of one crop."""

    image: int
    side: int
    left: int
    top: int
    turns: int
    flip: bool


class Crops:
    """Random square crops, optionally with flips, quarter turns and scale augmentation.

    Batch number k is a function of (seed, k) alone, so a resumed training continues with
    the batches of an uninterrupted one. If reading an image fails although its header is valid,
    the image is left out with a warning and another crop is drawn instead.

    Arguments:
        sources: Sources of images; see `genprior.io.datasets.open_source`.
        size: Side of the crops in pixels.
        channels: 3 for colour, 1 for grey.
        seed: Seed of the crops.
        flip: Whether half of the crops are mirrored.
        turn: Whether crops are rotated by random quarter turns.
        scale: Whether some crops are cut larger than `size` and downsampled to it.
        max_pixels: Images with more pixels are refused.
        resize: Length of the shorter side that all images are first resized to; None keeps
            their size.
        held_out: Use the images of torchvision data sets that are not for training.
        warn: Called with a message for every image that is left out, once per image and reading
            process.

    Raises:
        ValueError: No image is as large as a crop, or the header of a file is not that of an
            image.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        size: int,
        channels: int = 3,
        seed: int = 0,
        flip: bool = True,
        turn: bool = True,
        scale: bool = True,
        max_pixels: int = MAX_PIXELS,
        resize: int | None = None,
        held_out: bool = False,
        warn: Callable[[str], object] = warnings.warn,
    ) -> None:
        self.size, self.seed, self.warn = size, seed, warn
        self.flip, self.turn, self.scale = flip, turn, scale
        if isinstance(sources, str | Path):
            sources = [sources]
        collections = [
            open_source(source, channels, max_pixels, resize, held_out) for source in sources
        ]
        self.images = _LargeEnough(collections, size)
        self.damaged: set[int] = set()
        if not self.images:
            count = sum(map(len, collections))
            raise ValueError(
                f"none of the {count} images in {', '.join(map(_name, sources))} is "
                f"at least {size} pixels wide and high: choose a smaller crop or other images"
            )

    def batch(self, number: int, count: int, rows: slice | None = None) -> Tensor:
        """Returns batch `number` of `count` crops, or some rows of it.

        Returns:
            Shape (rows, C, size, size) in [0, 1].
        """
        rng = np.random.default_rng((self.seed, number))
        boxes = [self._draw(rng) for _ in range(count)]
        numbered = list(enumerate(boxes))[rows or slice(None)]
        crops = np.stack([self._crop(box, (self.seed, number, row)) for row, box in numbered])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255)

    def _draw(self, rng: np.random.Generator) -> _CropBox:
        index = int(rng.integers(len(self.images)))
        width, height = self.images.sizes[index]
        side = self.size
        if rng.random() > NATIVE_SHARE:
            wide = int(np.exp(rng.uniform(np.log(self.size), np.log(min(width, height)))))
            side = max(side, wide) if self.scale else side  # exp(log n) may be below n
        left = int(rng.integers(width - side + 1))
        top = int(rng.integers(height - side + 1))
        turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
        return _CropBox(index, side, left, top, turns * self.turn, flip and self.flip)

    def _crop(self, box: _CropBox, key: tuple[int, ...]) -> np.ndarray:
        """Reads a crop; if its image is damaged, another one that is drawn with `key`."""
        for attempt in range(1, TRIES):
            if box.image not in self.damaged:
                try:
                    return self._cut_out(box)
                except ImageError as error:
                    self.damaged.add(box.image)
                    self.warn(f"left out: {error}")
            box = self._draw(np.random.default_rng((*key, attempt)))
        return self._cut_out(box)

    def _cut_out(self, box: _CropBox) -> np.ndarray:
        image = self.images[box.image]
        corners = (box.left, box.top, box.left + box.side, box.top + box.side)
        if box.side == self.size:
            crop = image.crop(corners)
        else:
            crop = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=corners)
        pixels = np.asarray(crop).reshape(self.size, self.size, -1)
        pixels = np.rot90(pixels, box.turns)
        return pixels[:, ::-1].copy() if box.flip else pixels.copy()


class _LargeEnough(Sequence):
    """Images of several collections that are large enough for a crop, and their sizes."""

    def __init__(self, collections: Sequence[Collection], min_side: int) -> None:
        self.entries: list[tuple[Collection, int]] = []
        self.sizes: list[tuple[int, int]] = []
        for collection in collections:
            for index in range(len(collection)):
                size = collection.size(index)
                if min(size) >= min_side:
                    self.entries.append((collection, index))
                    self.sizes.append(size)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Image.Image:
        collection, number = self.entries[index]
        return collection[number]


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str) or hasattr(source, "parts") else repr(source)
