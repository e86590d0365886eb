"""Random crops of image collections, the batches of a training."""

import hashlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
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
# Bytes at the beginning of a file by which it is recognised.
HEAD = 4096
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
    the batches of an uninterrupted one. Images that cannot be read are left out with a warning:
    at the start if they are held in memory, otherwise when a crop of one of them is drawn, and
    another crop is drawn instead.

    Arguments:
        sources: Sources of images; see `genprior.io.datasets.open_source`.
        size: Side of the crops in pixels.
        channels: 3 for colour, 1 for grey; None for grey if no image has colours.
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
        ImageError: No image can be read.
        ValueError: No image is as large as a crop.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        size: int,
        channels: int | None = 3,
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
        if channels is None:
            opened = [open_source(source, 3, max_pixels, None, held_out) for source in sources]
            channels = 1 if all(collection.is_grey() for collection in opened) else 3
        self.channels = channels
        collections = [
            open_source(source, channels, max_pixels, resize, held_out) for source in sources
        ]
        self.images = _LargeEnough(collections, size)
        self.damaged: set[int] = set()
        if not self.images:
            self.images.explain(", ".join(map(_name, sources)), size)
        for error in self.images.errors:
            warn(f"left out: {error}")

    def digest(self) -> str:
        """Returns a digest of the images that does not depend on the name of their folder.

        It covers names below the folder, sizes and beginnings of files; and of other data sets
        the length and the first and last image.
        """
        digest = hashlib.sha256()
        for part in self.images.descriptions():
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()

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
        self.total, self.largest = sum(map(len, collections)), (0, 0)
        self.errors: list[ImageError] = []
        for collection in collections:
            for index in range(len(collection)):
                try:
                    size = _readable_size(collection, index)
                except ImageError as error:
                    self.errors.append(error)
                    continue
                self.largest = max(self.largest, size, key=lambda size: (min(size), max(size)))
                if min(size) >= min_side:
                    self.entries.append((collection, index))
                    self.sizes.append(size)

    def explain(self, name: str, min_side: int) -> None:
        """Raises the error of a collection without an image that is large enough.

        Arguments:
            name: Name of the source, for the message.
            min_side: Smallest length of a side, in pixels.

        Raises:
            ImageError: No image can be read.
            ValueError: The images are too small.
        """
        if self.errors and self.largest == (0, 0):
            first = self.errors[0]
            raise first if self.total == 1 else ImageError(
                f"none of the {self.total} images in {name} can be read; the first: {first}"
            )
        width, height = self.largest
        raise ValueError(
            f"none of the {self.total} images in {name} is at least {min_side} pixels wide and "
            f"high, the largest is {width}x{height}: choose a smaller crop (--crop "
            f"{min(width, height)}) or other images"
        )

    def descriptions(self) -> Iterator[bytes]:
        """Yields what identifies each image, or each data set whose images are not files."""
        for collection, entries in itertools.groupby(self.entries, lambda entry: entry[0]):
            files = list(dict.fromkeys(collection.file(index) for _, index in entries))
            if None in files:
                ends = (collection[0], collection[len(collection) - 1])
                yield b"%d " % len(collection) + b"".join(image.tobytes() for image in ends)
                continue
            folder = os.path.commonpath([file.absolute().parent for file in files])
            for file in files:
                name = os.path.relpath(file.absolute(), folder) if len(files) > 1 else ""
                with file.open("rb") as opened:
                    start = opened.read(HEAD)
                yield os.fsencode(name) + b" %d " % file.stat().st_size + start

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Image.Image:
        collection, number = self.entries[index]
        return collection[number]


def _readable_size(collection: Collection, index: int) -> tuple[int, int]:
    """Returns width and height of an image, which is decoded if it can be held in memory.

    Raises:
        ImageError: It cannot be read.
    """
    size = collection.size(index)
    if collection.holds(size):
        collection[index]  # `size` is content with a valid header
    return size


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str) or hasattr(source, "parts") else repr(source)
