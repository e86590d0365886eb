"""What image decoders give and encoders take: pixels as a file stores them, and metadata."""

from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from genprior.core.errors import ImageError

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
# What a TIFF says of the photo; its other tags describe how the pixels are stored.
PHOTO_TAGS = (
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
        format: One of `FORMATS`, or "NPY".
        mode: The file's own pixel mode, as Pillow or numpy calls it.
        icc: Colour profile of these pixels.
        exif: EXIF block, without orientation and without the old preview.
    """

    array: np.ndarray
    format: str
    mode: str
    icc: bytes | None = None
    exif: bytes | None = None


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Refuses an empty or a huge picture, before its pixels are decoded.

    Raises:
        ImageError: A side is 0, or there are more than `max_pixels` pixels.
    """
    if height < 1 or width < 1:
        raise ImageError(f"is {width} x {height} pixels: nothing to work on")
    if height * width > max_pixels:
        raise ImageError(
            f"is {width} x {height} pixels, more than {max_pixels}: shrink it or raise max_pixels"
        )


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors pixels (H, W, C) as their EXIF orientation, 1 to 8, asks for."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def photo_exif(exif: Image.Exif, format: str) -> tuple[int, bytes | None]:
    """Orientation of a photo, and its EXIF block without it.

    EXIF too broken to be written again is left out: it must not stand between a user and
    sound pixels. Neither must the orientation be lost with it.
    """
    try:
        orientation = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # the parser raises anything at all on damaged bytes
        return 1, None
    try:
        kept = Image.Exif()
        for tag in PHOTO_TAGS if format == "TIFF" else tuple(exif):
            if tag in exif and tag != ExifTags.Base.Orientation:
                subdirectory = tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
                kept[tag] = exif.get_ifd(tag) if subdirectory else exif[tag]
        return orientation, kept.tobytes() if len(kept) else None
    except Exception:
        return orientation, None
