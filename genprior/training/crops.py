"""Random crops of a collection of images, for training."""

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
# Crops that are drawn for one, while images turn out to be damaged.
TRIES = 20


@dataclass(frozen=True)
class _Cut:
    """One crop: which image, what of it, how it is turned."""

    image: int
    side: int
    left: int
    top: int
    turns: int
    flip: bool


class Crops:
    """Random square crops, on request with flips, quarter turns and scale augmentation.

    Batch number k is a function of (seed, k) alone, so a resumed training goes on with
    the batches it would have had. A file that turns out to be damaged when it is read, past its
    header, is left out with a warning: another crop is drawn instead.

    Arguments:
        sources: Where the images are; see `genprior.io.datasets.open_source`.
        size: Side of the crops in pixels.
        channels: 3 for colour, 1 for grey.
        seed: Seed of the crops.
        flip: Whether half of the crops are mirrored.
        turn: Whether crops are turned by quarter turns.
        scale: Whether some crops are larger parts of an image, made smaller.
        max_pixels: Larger images are refused.
        resize: Length that the shorter side of all images is given first; None leaves them.
        held_out: Take what is not for training of the data sets of torchvision.
        warn: Is told what is left out, once for each file by each process that reads.

    Raises:
        ValueError: No image is as large as a crop, or one is none by its header.
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
        self.images = _Large(collections, size)
        self.damaged: set[int] = set()
        if not self.images:
            count = sum(map(len, collections))
            raise ValueError(
                f"none of the {count} images in {', '.join(map(_name, sources))} is "
                f"{size} pixels wide and high: choose a smaller crop or other images"
            )

    def batch(self, number: int, count: int, rows: slice | None = None) -> Tensor:
        """Batch `number` of `count` crops, or some rows of it.

        Returns:
            Shape (rows, C, size, size) in [0, 1].
        """
        rng = np.random.default_rng((self.seed, number))
        cuts = [self._draw(rng) for _ in range(count)]
        numbered = list(enumerate(cuts))[rows or slice(None)]
        crops = np.stack([self._crop(cut, (self.seed, number, row)) for row, cut in numbered])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255)

    def _draw(self, rng: np.random.Generator) -> _Cut:
        index = int(rng.integers(len(self.images)))
        width, height = self.images.sizes[index]
        side = self.size
        if rng.random() > NATIVE_SHARE:
            wide = int(np.exp(rng.uniform(np.log(self.size), np.log(min(width, height)))))
            side = max(side, wide) if self.scale else side  # exp(log n) may be below n
        left = int(rng.integers(width - side + 1))
        top = int(rng.integers(height - side + 1))
        turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
        return _Cut(index, side, left, top, turns * self.turn, flip and self.flip)

    def _crop(self, cut: _Cut, key: tuple[int, ...]) -> np.ndarray:
        """A crop, or where its image is damaged another one, which the key decides on."""
        for attempt in range(1, TRIES):
            if cut.image not in self.damaged:
                try:
                    return self._cut_out(cut)
                except ImageError as error:
                    self.damaged.add(cut.image)
                    self.warn(f"left out: {error}")
            cut = self._draw(np.random.default_rng((*key, attempt)))
        return self._cut_out(cut)

    def _cut_out(self, cut: _Cut) -> np.ndarray:
        image = self.images[cut.image]
        box = (cut.left, cut.top, cut.left + cut.side, cut.top + cut.side)
        if cut.side == self.size:
            crop = image.crop(box)
        else:
            crop = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        pixels = np.asarray(crop).reshape(self.size, self.size, -1)
        pixels = np.rot90(pixels, cut.turns)
        return pixels[:, ::-1].copy() if cut.flip else pixels.copy()


class _Large(Sequence):
    """The images of several collections that are large enough, and their sizes."""

    def __init__(self, collections: Sequence[Collection], least: int) -> None:
        self.places: list[tuple[Collection, int]] = []
        self.sizes: list[tuple[int, int]] = []
        for collection in collections:
            for index in range(len(collection)):
                size = collection.size(index)
                if min(size) >= least:
                    self.places.append((collection, index))
                    self.sizes.append(size)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Image.Image:
        collection, place = self.places[index]
        return collection[place]


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str) or hasattr(source, "parts") else repr(source)
