"""Image encoder: `Raster` to the bytes of a file, with bit depth, alpha and metadata."""

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from genprior.core.errors import ImageError
from genprior.io.raster import COMMENT, Raster
from genprior.io.tiff import tiff_bytes

LARGEST_SIDES = {"JPEG": 65500, "WEBP": 16383}
BITS = {"PNG": 16, "JPEG": 8, "WEBP": 8, "TIFF": 32, "BMP": 8, "NPY": 32}
WITH_ALPHA = ("PNG", "WEBP", "TIFF", "NPY")
# The defaults of WebP and JPEG are lossy; JPEG also subsamples colour.
SETTINGS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 3},  # photos: size as at level 6, in less than half the time
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "BMP": {},
}
# The metadata that each format holds, by the names of Pillow.
METADATA = {
    "PNG": ("icc_profile", "exif", "dpi", "pnginfo"),
    "JPEG": ("icc_profile", "exif", "dpi", "comment"),
    "WEBP": ("icc_profile", "exif"),
    "BMP": ("dpi",),
}
LONGEST_COMMENT = 65533  # bytes, in a JPEG
INCH = 0.0254  # metres
PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
UP = 2  # PNG filter: difference to the row above


def encode(raster: Raster) -> bytes:
    """Encodes an image, without loss except for JPEG, which has quality 95.

    Raises:
        ImageError: The format cannot store the image; the message has no file name.
    """
    raster = replace(raster, array=np.ascontiguousarray(raster.array))
    array, format = raster.array, raster.format
    if array.shape[2] in (2, 4):
        check_transparency(format)
    if format == "NPY":
        file = io.BytesIO()
        np.save(file, array[:, :, 0] if array.shape[2] == 1 else array)
        return file.getvalue()
    if format == "TIFF":
        return tiff_bytes(raster)
    if array.dtype == np.uint16:
        return _png_16_bit(raster)
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    file = io.BytesIO()
    try:
        image.save(file, format, **SETTINGS[format], **_metadata(raster))
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be written as {format} ({error}): write PNG") from error
    return file.getvalue()


def _metadata(raster: Raster) -> dict[str, Any]:
    """Returns the metadata that the format holds, as arguments of Pillow."""
    comment = raster.text.get(COMMENT, "").encode("utf-8", "surrogateescape")
    found = {
        "icc_profile": raster.icc,
        "exif": raster.exif,
        "dpi": raster.dpi,
        "comment": comment if len(comment) <= LONGEST_COMMENT else None,
        "pnginfo": _png_text(raster.text) if raster.format == "PNG" else None,
    }
    return {name: found[name] for name in METADATA[raster.format] if found[name]}


def _png_text(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    """Returns the text chunks of a PNG."""
    chunks = PngImagePlugin.PngInfo()
    for keyword, value in text.items():
        try:
            chunks.add_text(keyword, value)
        except UnicodeEncodeError:  # the comment of a JPEG, which was not UTF-8
            value = value.encode("utf-8", "surrogateescape").decode("latin-1")
            chunks.add_text(keyword, value)
    return chunks


def check_side(format: str, side: int) -> None:
    """Raises if a format cannot store an image `side` pixels wide or high.

    Raises:
        ImageError: The side is too long.
    """
    if side > LARGEST_SIDES.get(format, side):
        raise ImageError(
            f"{format} has at most {LARGEST_SIDES[format]} pixels per side, got {side}: write PNG"
        )


def check_transparency(format: str) -> None:
    """Raises if a format cannot store transparency.

    Raises:
        ImageError: The format has no alpha channel.
    """
    if format not in WITH_ALPHA:
        raise ImageError(f"{format} cannot hold transparency: write {', '.join(WITH_ALPHA)}")


def _png_16_bit(raster: Raster) -> bytes:
    """Encodes a 16-bit PNG; Pillow can do that for grey only."""
    height, width, channels = raster.array.shape
    rows = raster.array.astype(">u2").reshape(height, -1).view(np.uint8)
    rows[1:] -= rows[:-1].copy()
    rows = np.pad(rows, ((0, 0), (1, 0)), constant_values=UP)
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOUR[channels], 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
    if raster.icc:
        file += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(raster.icc))
    if raster.dpi:
        per_metre = [round(dpi / INCH) for dpi in raster.dpi]
        file += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if raster.exif:
        file += _chunk(b"eXIf", raster.exif.removeprefix(b"Exif\0\0"))
    for kind, data, *_ in _png_text(raster.text).chunks:
        file += _chunk(kind, data)
    return file + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
