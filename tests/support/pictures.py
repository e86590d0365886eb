"""Test images, and image files written without the package."""

import io
import struct
import zlib

import numpy as np
import tifffile
import torch
from PIL import Image

from genprior.io.images import ImageFile

rng = np.random.default_rng(0)


def levels(channels: int, bits: int, size: tuple[int, int] = (7, 9)) -> np.ndarray:
    dtype = np.uint8 if bits == 8 else np.uint16
    return rng.integers(0, 2**bits, (*size, channels), dtype=dtype)


def pillow(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def encoded(
    format: str, array: np.ndarray | None = None, mode: str | None = None, **about: object
) -> bytes:
    """Returns the file that Pillow writes for levels (H, W, C), or for random levels."""
    file = io.BytesIO()
    image = pillow(levels(3, 8, (40, 40)) if array is None else array)
    (image.convert(mode) if mode else image).save(file, format, **about)
    return file.getvalue()


def tiff(array: np.ndarray, **about: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **about)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_array(picture: ImageFile) -> np.ndarray:
    """Returns the levels (H, W, C) of an image, alpha last."""
    channels = [picture.pixels] + ([] if picture.alpha is None else [picture.alpha])
    values = torch.cat(channels, 1)[0].permute(1, 2, 0).double().numpy()
    return values if picture.bits == 32 else np.round(values * (2**picture.bits - 1))


def as_picture(array: np.ndarray, **about: object) -> ImageFile:
    values = torch.from_numpy(array / np.iinfo(array.dtype).max).float().permute(2, 0, 1)[None]
    colours = 1 if array.shape[2] < 3 else 3
    alpha = values[:, colours:] if array.shape[2] > colours else None
    return ImageFile(values[:, :colours], alpha, array.dtype.itemsize * 8, **about)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Returns a chunk of a PNG file."""
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png_file(header: tuple[int, ...], rows: bytes, *chunks: bytes) -> bytes:
    """Returns a PNG file: fields of the header, filtered rows, and chunks in front of them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *header))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body


def png(array: np.ndarray, extra: bytes = b"", *chunks: bytes) -> bytes:
    """Returns a 16-bit PNG file, written from the specification."""
    height, width, channels = array.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    transparent = [chunk(b"tRNS", extra)] if extra else []
    return png_file((width, height, 16, colour, 0, 0, 0), rows, *chunks, *transparent)


def deep_tiff() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, levels(3, 16), photometric="rgb")
    return file.getvalue()
