"""Decoded image file: pixels at the bit depth of the file, and metadata."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from genprior.core.errors import ImageError
from genprior.io.jpeg_coding import JPEGCoding

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
READ_ONLY = ("AVIF", "HEIF")  # lossy formats, which Pillow reads if it was built with them
COMMENT = "Comment"  # keyword of a comment among the text chunks
MAX_DPI = 65535  # the largest number that a JPEG holds
# The descriptions that microscopy software and tifffile write: they tell the shape of the pixels.
STORAGE_DESCRIPTIONS = ('{"shape":', "ImageJ=", "<?xml", "<OME")
# TIFF tags that describe the image; the other tags describe how its pixels are stored.
DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
    ExifTags.IFD.Exif,
    ExifTags.IFD.GPSInfo,
)


@dataclass(frozen=True)
class Raster:
    """The content of an image file.

    Attributes:
        array: (H, W, C) uint8, uint16 or float32, upright; an even C ends with alpha.
        format: One of `FORMATS` or `READ_ONLY`, or "NPY".
        mode: Pixel mode of the file, as named by Pillow, numpy or tifffile.
        icc: Colour profile of the pixels.
        exif: EXIF block, without orientation and preview image.
        dpi: Horizontal and vertical resolution in pixels per inch; None if the file has none.
        text: Text chunks of a PNG by keyword; the comment of a JPEG as "Comment".
        coding: Quantisation tables and sampling of a JPEG.
    """

    array: np.ndarray
    format: str
    mode: str
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    coding: JPEGCoding | None = None


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Raises if an image is empty or too large; to be called before its pixels are decoded.

    Raises:
        ImageError: A side is 0, or there are more than `max_pixels` pixels.
    """
    if height < 1 or width < 1:
        raise ImageError(f"is {width} x {height} pixels: an image has at least 1 x 1")
    if height * width > max_pixels:
        raise ImageError(
            f"is {width} x {height} pixels, more than {max_pixels}: shrink it or raise max_pixels"
        )


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Rotates and flips pixels (H, W, C) according to their EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def orientation_and_exif(exif: Image.Exif, format: str) -> tuple[int, bytes | None]:
    """Returns the EXIF orientation of an image, and its EXIF block without the orientation.

    An EXIF block too damaged to be written again is dropped (None), so that intact pixels can
    still be read; the orientation is returned nevertheless.
    """
    try:
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # the parser raises arbitrary exceptions on damaged bytes
        return 1, None
    try:
        kept = Image.Exif()
        for tag in DESCRIPTIVE_TAGS if format == "TIFF" else tuple(exif):
            if tag in exif and tag != ExifTags.Base.Orientation and not _tells_storage(exif, tag):
                subdirectory = tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
                kept[tag] = exif.get_ifd(tag) if subdirectory else exif[tag]
        return orientation, kept.tobytes() if len(kept) else None
    except Exception:
        return orientation, None


def _tells_storage(exif: Image.Exif, tag: int) -> bool:
    if tag != ExifTags.Base.ImageDescription:
        return False
    return str(exif[tag]).startswith(STORAGE_DESCRIPTIONS)


def resolution(dpi: Any) -> tuple[float, float] | None:
    """Returns a resolution in pixels per inch as two floats; None if it is not one."""
    try:
        x, y = map(float, dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    sound = all(math.isfinite(value) and 0 < value < MAX_DPI for value in (x, y))
    return (x, y) if sound else None
