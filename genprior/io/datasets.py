"""Image collections: folders, files, `.npy` and idx arrays, data sets of torch and torchvision."""

import gzip
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from genprior.core.errors import ImageError, SettingError
from genprior.io.arrays import to_tensor
from genprior.io.images import image_files, in_bytes, read_bits, read_size
from genprior.io.limits import MAX_PIXELS
from genprior.io.npy import read_header
from genprior.io.raster import check_size
from genprior.io.torchvision_datasets import TORCHVISION, open_set

# Pixels of a collection kept in memory; the images beyond are read from disk at each access.
HELD_PIXELS = 2**30
DEFLATE_RATIO = 1032  # the largest possible
# What data sets raise for damaged files; Pillow raises most of them.
DAMAGE = (OSError, TypeError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
# Modes of Pillow without colours.
GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class Collection(Sequence):
    """Sequence of images, read at first access and cached up to `HELD_PIXELS` pixels.

    Arguments:
        items: Source of each image: file paths, or items of a data set.
        mode: "RGB" or "L".
        resize: Length of the shorter side, or None.
    """

    def __init__(self, items: Any, mode: str, resize: int | None) -> None:
        self.items, self.mode, self.resize = items, mode, resize
        self.held: dict[int, Image.Image] = {}
        self.pixels = 0

    def __getstate__(self) -> dict[str, Any]:
        # without the cache: another process reads the images itself
        return {**vars(self), "held": {}, "pixels": 0}

    def __len__(self) -> int:
        return len(self.items)

    def file(self, index: int) -> Path | None:
        """Returns the file that an image is read from, or None."""
        return None

    def size(self, index: int) -> tuple[int, int]:
        """Returns width and height of an image."""
        return self[index].size

    def holds(self, size: tuple[int, int]) -> bool:
        """Whether another image of this size is kept in memory."""
        return self.pixels + math.prod(size) <= HELD_PIXELS

    def __getitem__(self, index: int) -> Image.Image:
        if index in self.held:
            return self.held[index]
        image = self.read(index).convert(self.mode)
        size = resized(image.size, self.resize)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        if self.holds(size):
            self.held[index] = image
            self.pixels += math.prod(size)
        return image

    def is_grey(self) -> bool:
        """Whether no readable image has colours."""
        for index in range(len(self)):
            with suppress(ImageError):
                if not self.is_grey_image(index):
                    return False
        return True

    def is_grey_image(self, index: int) -> bool:
        """Whether an image has no colours."""
        return self.read(index).mode == "L"

    def read(self, index: int) -> Image.Image:
        """Reads an image, before conversion and resizing."""
        raise NotImplementedError


def open_source(
    source: Any,
    channels: int,
    max_pixels: int = MAX_PIXELS,
    resize: int | None = None,
    held_out: bool = False,
) -> Collection:
    """Opens the images of a source, as 8-bit Pillow images of 3 or 1 channels.

    Arguments:
        source: Folder of images (read recursively), image file, `.npy` file of shape (N, H, W)
            or (N, H, W, C), idx file (MNIST's format, may be gzipped), "torchvision:NAME" or
            "torchvision:NAME:FOLDER" (NAME may be NAME,SETTING=VALUE,...), or a
            `torch.utils.data.Dataset` of images or of tuples whose first element is one.
        channels: 3 or 1.
        max_pixels: Larger images raise an error, if they are in files before they are decoded.
        resize: Length to which the shorter side of every image is resized; None keeps the size.
        held_out: Whether to take the test or validation part of a torchvision data set instead
            of the training part; a data set without parts is taken whole.

    Raises:
        ImageError: There is no such file, it cannot be read, or it is too large.
        SettingError: The channels are neither 3 nor 1, torchvision has no such data set, or
            it cannot be downloaded.
    """
    if channels not in (1, 3):
        raise SettingError(f"channels must be 3 (colour) or 1 (grey), got {channels}")
    mode = "RGB" if channels == 3 else "L"
    if not isinstance(source, str | Path):
        return _Items(source, mode, max_pixels, resize)
    if is_picture(source):
        return _Files([Path(source)], mode, max_pixels, resize)
    if is_folder(source):
        return _Files(image_files(Path(source), recursive=True), mode, max_pixels, resize)
    return _Items(open_items(source, max_pixels, held_out), mode, max_pixels, resize)


def open_items(
    source: str | Path, max_pixels: int = MAX_PIXELS, held_out: bool = False
) -> Any:
    """Opens a `.npy` file, an idx file or a torchvision data set; images are not converted.

    Arguments and errors as for `open_source`.
    """
    if str(source).startswith(TORCHVISION):
        return open_set(str(source).removeprefix(TORCHVISION), held_out)
    path = Path(source)
    return _idx(path, max_pixels) if _is_idx(path) else _npy(path, max_pixels)


def is_picture(source: str | Path) -> bool:
    """Returns whether a source is one image file."""
    return Path(source).is_file() and not _is_array(source)


def is_folder(source: str | Path) -> bool:
    """Returns whether a source is a folder of images, which need not exist."""
    named = str(source).startswith(TORCHVISION)
    return not (named or _is_array(source) or Path(source).is_file())


def _is_array(source: str | Path) -> bool:
    path = Path(source)
    return not path.is_dir() and (path.suffix == ".npy" or _is_idx(path))


class _Files(Collection):
    """Collection of image files."""

    def __init__(
        self, paths: list[Path], mode: str, max_pixels: int, resize: int | None
    ) -> None:
        super().__init__(paths, mode, resize)
        self.max_pixels = max_pixels

    def size(self, index: int) -> tuple[int, int]:
        if self.pixels < HELD_PIXELS:
            with suppress(ImageError):  # damaged pixels, but the header may be intact
                return self[index].size
        return resized(read_size(self.items[index], self.max_pixels), self.resize)

    def is_grey_image(self, index: int) -> bool:
        with (  # the header tells it, unless the format is one that Pillow does not know
            suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError),
            warnings.catch_warnings(action="ignore"), Image.open(self.items[index]) as image,
        ):
            return image.mode in GREY_MODES
        return super().is_grey_image(index)

    def file(self, index: int) -> Path:
        return self.items[index]

    def read(self, index: int) -> Image.Image:
        return _read_8_bits(self.items[index], self.max_pixels)


class _Items(Collection):
    """Collection of the items of a data set."""

    def __init__(self, items: Any, mode: str, max_pixels: int, resize: int | None) -> None:
        super().__init__(items, mode, resize)
        self.max_pixels = max_pixels

    def is_grey(self) -> bool:
        if isinstance(self.items, _Array | np.ndarray):  # all have the same shape
            return len(self) == 0 or self.is_grey_image(0)
        return super().is_grey()

    def file(self, index: int) -> Path | None:
        return self.items.path if isinstance(self.items, _Array) else None

    def read(self, index: int) -> Image.Image:
        name = f"image {index} of {len(self.items)}"
        pixels = read_item(self.items, index, name, self.max_pixels)
        return _array_to_pillow(in_bytes(pixels))


def read_item(items: Any, index: int, name: str, max_pixels: int) -> Tensor:
    """Reads an item of a data set: an image, or a tuple whose first element is one.

    Arguments:
        items: The data set.
        index: Index of the item.
        name: Name of the item in error messages.
        max_pixels: Larger images raise an error, those opened by Pillow before they are decoded.

    Returns:
        The pixels (1, C, H, W).

    Raises:
        ImageError: The image is damaged, too large or not one that `to_tensor` takes.
    """
    try:
        with _pillow_limit(max_pixels):
            item = items[index]
            image = item[0] if isinstance(item, tuple | list) else item
            if isinstance(image, Image.Image):
                check_size(image.height, image.width, max_pixels)
            pixels, _ = to_tensor(image)
        check_size(*pixels.shape[-2:], max_pixels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{name}: has more than {max_pixels} pixels: shrink it or raise max_pixels"
        ) from error
    except DAMAGE as error:
        raise ImageError(f"{name}: {error}") from error
    return pixels


@contextmanager
def _pillow_limit(max_pixels: int) -> Iterator[None]:
    """Makes Pillow refuse images of more than `max_pixels` when a data set opens them."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


class _Array(Sequence):
    """Memory-mapped images of a `.npy` file; a pickled copy opens the file again."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            read_header(file)
        self.path, self.images = path, np.load(path, mmap_mode="r", allow_pickle=False)

    def __reduce__(self) -> tuple:
        return _Array, (self.path.absolute(),)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        image = self.images[index]
        return image.astype(np.uint8) * 255 if image.dtype == bool else image


def resized(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Returns the size of an image after resizing its shorter side to `side`, unless that is None.

    >>> resized((300, 200), 64)
    (96, 64)
    """
    if side is None:
        return size
    return tuple(max(1, round(length * side / min(size))) for length in size)


def _array_to_pillow(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def _read_8_bits(path: Path, max_pixels: int) -> Image.Image:
    """Reads an image file in 8 bits, upright, without alpha; Pillow resizes 8 bits fast."""
    return _array_to_pillow(read_bits(path, max_pixels))


def _npy(path: Path, max_pixels: int) -> _Array:
    try:
        array = _Array(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read as an array ({error})") from error
    shape = array.images.shape
    if len(shape) not in (3, 4):
        raise ImageError(
            f"{path}: images must be (N, height, width) or (N, height, width, channels), got "
            f"{shape}"
        )
    _check_size(path, shape[1:3], max_pixels)
    return array


def _is_idx(path: Path) -> bool:
    return ".idx" in path.name or "-idx" in path.name


def _check_size(path: Path, size: tuple[int, ...], max_pixels: int) -> None:
    try:
        check_size(*size, max_pixels)
    except ImageError as error:
        raise ImageError(f"{path}: each image {error}") from None


def _idx(path: Path, max_pixels: int) -> np.ndarray:
    """Reads an idx file (the format of MNIST: magic number, sizes, bytes)."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zero, kind, axes = struct.unpack(">HBB", file.read(4))
            if (zero, kind) != (0, 8) or axes not in (3, 4):
                raise ValueError("it does not hold 8-bit images")
            shape = struct.unpack(f">{axes}I", file.read(4 * axes))
            _check_size(path, shape[1:3], max_pixels)
            count = math.prod(shape)
            if count > path.stat().st_size * (DEFLATE_RATIO if path.suffix == ".gz" else 1):
                raise ValueError(f"it is cut short: {count} bytes should follow its header")
            return np.frombuffer(file.read(count + 1), np.uint8).reshape(shape)
    except ImageError:
        raise
    except (OSError, EOFError, struct.error, ValueError, zlib.error) as error:
        raise ImageError(f"{path}: cannot be read as an idx file ({error})") from error
