"""Random crops of a collection of photos, for training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genprior.images import image_files, read_image

NATIVE_SHARE = 0.6


class Crops:
    """Random square crops with flips, quarter turns and scale augmentation.

    Batch number k is a function of (seed, k) alone, so a resumed training goes on with
    the batches it would have had.

    Arguments:
        folders: Folders of images, read recursively and held in memory.
        size: Side of the crops in pixels.
        channels: 3 for colour, 1 for grey.
        seed: Seed of the crops.

    Raises:
        ValueError: No image is as large as a crop, or one is damaged.
    """

    def __init__(
        self, folders: Sequence[Path], size: int, channels: int = 3, seed: int = 0
    ) -> None:
        self.size, self.seed = size, seed
        files = [path for folder in folders for path in image_files(folder, recursive=True)]
        self.images = []
        for path in files:
            image = _eight_bits(path).convert("RGB" if channels == 3 else "L")
            if min(image.size) >= size:
                self.images.append(image)
        if not self.images:
            raise ValueError(
                f"none of the {len(files)} images in {', '.join(map(str, folders))} is "
                f"{size} pixels wide and high: choose a smaller crop or other images"
            )

    def batch(self, number: int, count: int) -> Tensor:
        """Batch `number` of `count` crops, shape (count, C, size, size) in [0, 1]."""
        rng = np.random.default_rng((self.seed, number))
        crops = np.stack([self._crop(rng) for _ in range(count)])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255)

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        image = self.images[rng.integers(len(self.images))]
        side = self.size
        if rng.random() > NATIVE_SHARE:
            largest = min(image.width, image.height)
            side = int(np.exp(rng.uniform(np.log(self.size), np.log(largest))))
        left = rng.integers(image.width - side + 1)
        top = rng.integers(image.height - side + 1)
        box = (left, top, left + side, top + side)
        if side == self.size:
            crop = image.crop(box)
        else:
            crop = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        pixels = np.asarray(crop).reshape(self.size, self.size, -1)
        pixels = np.rot90(pixels, rng.integers(4))
        return pixels[:, ::-1].copy() if rng.random() < 0.5 else pixels.copy()


def _eight_bits(path: Path) -> Image.Image:
    """A photo, upright, without its alpha: Pillow enlarges it fast in 8 bits only."""
    pixels = read_image(path).pixels[0].clamp(0, 1).mul(255).round().byte()
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
