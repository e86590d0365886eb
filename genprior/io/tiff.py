"""TIFF decoder and encoder for 16 bits and floats, which Pillow supports only in part."""

import io
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from genprior.core.errors import ImageError
from genprior.io.raster import Raster, check_size, orientation_and_exif, upright

ICC_PROFILE = 34675
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
DEFLATE, HORIZONTAL_DIFFERENCES = 8, 2
UNPREMULTIPLIED = 2
UNSIGNED, FLOAT = 1, 3


def read_tiff(data: bytes, max_pixels: int) -> Raster | None:
    """Decodes a TIFF of more than 8 bits; returns None for one that Pillow reads without loss.

    Raises:
        ImageError: The file is too large, holds several images, or cannot be read without loss.
        ValueError: The file is damaged.
    """
    import tifffile

    with _quiet(tifffile.logger()), tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = [page.aspage() for page in file.pages]
        pages = [page for page in pages if not page.is_reduced]
        if not pages:
            raise ValueError("it holds no image")
        if len(pages) > 1:
            raise ImageError(f"holds {len(pages)} images: split it into one file each")
        page = pages[0]
        check_size(page.imagelength, page.imagewidth, max_pixels)
        if page.samplesperpixel not in (1, 2, 3, 4) or page.imagedepth != 1:
            raise ImageError(
                f"has {page.samplesperpixel} channels: save it as grey or RGB, alpha may be added"
            )
        if page.bitspersample <= 8:
            return None
        whole = page.dtype is not None and page.bitspersample == 8 * page.dtype.itemsize
        if not whole or page.dtype.str[1:] not in ("u2", "f2", "f4", "f8"):
            raise ImageError(
                f"holds {page.bitspersample}-bit {page.dtype or 'numbers'}: "
                "save it with 8 or 16 bits, or as floats"
            )
        if not _decodable(page):
            if page.samplesperpixel == 1 and page.dtype.str[1:] in ("u2", "f4"):
                return None
            raise ImageError(
                f"is compressed by {page.compression.name}: save it uncompressed or with deflate, "
                "or install imagecodecs"
            )
        array = _pixels(page)
    if array.dtype != np.uint16:
        array = array.astype(np.float32)
    array = upright(array, page.tags.valueof("Orientation", default=1))
    profile = page.tags.valueof(ICC_PROFILE)
    mode = f"{page.photometric.name};{page.bitspersample}"
    return Raster(array, "TIFF", mode, profile, _exif(data))


def _exif(data: bytes) -> bytes | None:
    exif = Image.Exif()
    try:
        exif.load_from_fp(io.BytesIO(data))
    except Exception:  # BigTIFF, or damage outside the pixels
        return None
    return orientation_and_exif(exif, "TIFF")[1]


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Silences the log of the decoder for a damaged file: the error reports the damage."""
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _decodable(page: Any) -> bool:
    import tifffile

    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression]
        tifffile.TIFF.UNPREDICTORS[page.predictor]
    except KeyError:
        return False
    return True


def _pixels(page: Any) -> np.ndarray:
    colours = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3}.get(page.photometric)
    extra = page.samplesperpixel - colours if colours else 0
    if not colours or extra not in (0, 1):
        kind = getattr(page.photometric, "name", page.photometric)
        raise ImageError(f"has {page.samplesperpixel} channels of kind {kind}: convert it to RGB")
    if extra and page.extrasamples[:1] == (1,):
        raise ImageError("holds colours multiplied by alpha: save it with straight alpha")
    if 0 in page.databytecounts or len(page.dataoffsets) < math.prod(page.chunked):
        raise ValueError("parts of the pixels are missing")  # they would be read as black
    # Planar channels are the first axis, interleaved ones the last; depth is 1.
    array = np.moveaxis(page.asarray().reshape(page.shaped)[:, 0], 0, 2)
    array = array.reshape(page.imagelength, page.imagewidth, -1)
    if page.photometric == WHITE_IS_ZERO:
        top = 65535 if array.dtype == np.uint16 else 1
        array = np.concatenate([top - array[..., :1], array[..., 1:]], 2)
    return array


def tiff_bytes(array: np.ndarray, icc: bytes | None, exif: bytes | None) -> bytes:
    """Encodes pixels (H, W, C) of uint8, uint16 or float32 as a deflated TIFF."""
    height, width, channels = array.shape
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    if exif:
        block = Image.Exif()
        block.load(exif)
        for tag in block:
            directory[tag] = block.get_ifd(tag) or block[tag]
    array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.kind == "u":
        array[:, 1:] -= array[:, :-1].copy()
    strip = zlib.compress(array.tobytes(), 6)
    floats = array.dtype.kind == "f"
    directory[TiffImagePlugin.IMAGEWIDTH] = width
    directory[TiffImagePlugin.IMAGELENGTH] = height
    directory[TiffImagePlugin.BITSPERSAMPLE] = (8 * array.dtype.itemsize,) * channels
    directory[TiffImagePlugin.COMPRESSION] = DEFLATE
    directory[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = RGB if channels > 2 else BLACK_IS_ZERO
    directory[TiffImagePlugin.STRIPOFFSETS] = 0  # moved behind the directory when saved
    directory[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    directory[TiffImagePlugin.ROWSPERSTRIP] = height
    directory[TiffImagePlugin.STRIPBYTECOUNTS] = len(strip)
    directory[TiffImagePlugin.SAMPLEFORMAT] = (FLOAT if floats else UNSIGNED,) * channels
    if not floats:
        directory[TiffImagePlugin.PREDICTOR] = HORIZONTAL_DIFFERENCES
    if channels in (2, 4):
        directory[TiffImagePlugin.EXTRASAMPLES] = UNPREMULTIPLIED
    if icc:
        directory.tagtype[ICC_PROFILE] = 7
        directory[ICC_PROFILE] = icc
    file = io.BytesIO()
    directory.save(file)
    file.write(strip)
    return file.getvalue()
