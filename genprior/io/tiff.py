"""TIFF decoder and encoder for 16 bits and floats, which Pillow supports only in part."""

import io
import logging
import lzma
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from genprior.core.errors import ImageError
from genprior.io.raster import Raster, check_size, orientation_and_exif, resolution, upright

ICC_PROFILE, INK_SET, DOT_RANGE = 34675, 332, 336
X_RESOLUTION, Y_RESOLUTION = ExifTags.Base.XResolution, ExifTags.Base.YResolution
INCHES = {2: 1.0, 3: 2.54}  # dots per inch of the units inch and centimetre
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3}
DEFLATE, HORIZONTAL_DIFFERENCES, SEPARATE_PLANES = 8, 2, 2
PREMULTIPLIED, UNPREMULTIPLIED = 1, 2
ALPHA = (PREMULTIPLIED, UNPREMULTIPLIED, 999)  # 999: Corel Draw
UNSIGNED, FLOAT, UNDEFINED = 1, 3, 4
TOP = {"u1": 255, "u2": 65535}
# By compression: a decoder, and by how much it can expand data.
UNPACKERS = {
    DEFLATE: (zlib.decompressobj, 1032),
    32946: (zlib.decompressobj, 1032),
    34925: (lzma.LZMADecompressor, 2**14),
}
TILE_PIXELS = 2**20  # usual tiles, even of images of a few pixels
SPARE_BYTES = 2**26


def read_tiff(data: bytes, max_pixels: int) -> Raster | None:
    """Decodes a TIFF of more than 8 bits; returns None for one that Pillow reads without loss.

    Raises:
        ImageError: The file is too large, holds several images, or cannot be read without loss.
        ValueError: The file is damaged.
    """
    import tifffile

    with _quiet(tifffile.logger()), tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _only_image(file)
        check_size(page.imagelength, page.imagewidth, max_pixels)
        _check_tiles(page, max_pixels)
        _check_channels(page)
        _check_numbers(page)
        if _is_for_pillow(page):
            return None
        _check_unpacked(page, data)
        array = _pixels(page)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    array = upright(array, page.tags.valueof("Orientation", default=1))
    profile = page.tags.valueof(ICC_PROFILE)
    mode = f"{page.photometric.name};{page.bitspersample}"
    return Raster(array, "TIFF", mode, profile, *_metadata(data))


def _only_image(file: Any) -> Any:
    """Returns the page of the image; previews are ignored."""
    pages = [page.aspage() for page in file.pages]
    pages = [page for page in pages if not page.is_reduced]
    if not pages:
        raise ValueError("it holds no image")
    if len(pages) > 1:
        raise ImageError(f"holds {len(pages)} images: split it into one file each")
    return pages[0]


def _check_tiles(page: Any, max_pixels: int) -> None:
    """Raises if a tile, which may be larger than the image, is too large."""
    limit = max(max_pixels, TILE_PIXELS)
    if page.is_tiled and page.tilewidth * page.tilelength * max(1, page.tiledepth) > limit:
        raise ImageError(
            f"has tiles of {page.tilewidth} x {page.tilelength} pixels, more than {limit}: "
            f"save it with smaller tiles or raise max_pixels"
        )


def _check_channels(page: Any) -> None:
    """Raises unless the channels are those of grey, RGB, CMYK or a palette, and perhaps alpha."""
    count, kind = page.samplesperpixel, page.photometric
    if count not in (1, 2, 3, 4) or page.imagedepth != 1:
        raise ImageError(
            f"has {count} channels: save it as grey or RGB, alpha may be added"
        )
    extra = count - CHANNELS.get(kind, count)
    if extra > 1 or (extra == 1 and (*page.extrasamples, 0)[0] not in ALPHA):
        raise ImageError(
            f"has {count} bands, of which {extra} are neither grey, colour nor marked as alpha "
            f"(such as infrared): save each band in a file of its own, or the colours only"
        )
    dots = page.tags.valueof(DOT_RANGE, default=(0, 1))
    if kind == SEPARATED and (page.tags.valueof(INK_SET, default=1) != 1 or dots[0] > dots[1]):
        raise ImageError("holds inks that are not plain CMYK: convert it to RGB")


def _check_numbers(page: Any) -> None:
    """Raises unless the numbers are unsigned of up to 8 or 16 bits, or floats."""
    bits, name = page.bitspersample, page.dtype or "numbers"
    if isinstance(bits, int) and bits <= 8:
        accepted = page.sampleformat in (UNSIGNED, UNDEFINED)
    else:
        whole = page.dtype is not None and bits == 8 * page.dtype.itemsize
        accepted = whole and page.dtype.str[1:] in ("u2", "f2", "f4", "f8")
    if not accepted:
        raise ImageError(
            f"holds {bits}-bit {name}: save it with 8 or 16 bits, or as floats; integers must be "
            f"unsigned"
        )


def _is_for_pillow(page: Any) -> bool:
    """Returns whether Pillow reads the pixels without loss."""
    decodable, planar = _decodable(page), page.planarconfig == SEPARATE_PLANES
    if page.bitspersample <= 8:
        with_alpha = page.photometric in (BLACK_IS_ZERO, RGB) and page.samplesperpixel in (2, 4)
        return not (with_alpha and planar and decodable and page.bitspersample == 8)
    if decodable:
        return False
    if page.samplesperpixel == 1 and page.dtype.str[1:] in ("u2", "f4"):
        return True
    raise ImageError(
        f"is compressed by {page.compression.name}: save it uncompressed or with deflate, "
        "or install imagecodecs"
    )


def _check_unpacked(page: Any, data: bytes) -> None:
    """Raises if a compressed strip or tile holds far more bytes than its pixels take.

    tifffile unpacks it whole, however large it is.
    """
    unpacker, ratio = UNPACKERS.get(page.compression, (None, 0))
    allowed = math.prod(page.chunks) * page.dtype.itemsize + SPARE_BYTES
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if count * ratio > allowed:
            unpacked = unpacker().decompress(data[offset : offset + count], allowed + 1)
            if len(unpacked) > allowed:
                raise ImageError(
                    f"holds a strip or tile of more than {allowed} bytes, far more than its "
                    f"pixels take: save it again"
                )


def _metadata(data: bytes) -> tuple[bytes | None, tuple[float, float] | None]:
    """Returns the EXIF block and the resolution."""
    exif = Image.Exif()
    try:
        exif.load_from_fp(io.BytesIO(data))
        unit = INCHES.get(exif.get(ExifTags.Base.ResolutionUnit, 2), math.nan)
        dpi = [float(exif[tag]) * unit for tag in (X_RESOLUTION, Y_RESOLUTION) if tag in exif]
    except Exception:  # BigTIFF, or damage outside the pixels
        return None, None
    return orientation_and_exif(exif, "TIFF")[1], resolution(dpi)


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
    if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        kind = getattr(page.photometric, "name", page.photometric)
        raise ImageError(f"has {page.samplesperpixel} channels of kind {kind}: convert it to RGB")
    if 0 in page.databytecounts or len(page.dataoffsets) < math.prod(page.chunked):
        raise ValueError("parts of the pixels are missing")  # they would be read as black
    # Planar channels are the first axis, interleaved ones the last; depth is 1.
    array = np.moveaxis(page.asarray().reshape(page.shaped)[:, 0], 0, 2)
    array = array.reshape(page.imagelength, page.imagewidth, -1)
    if page.photometric == WHITE_IS_ZERO:
        top = TOP.get(array.dtype.str[1:], 1)
        array = np.concatenate([top - array[..., :1], array[..., 1:]], 2)
    if array.shape[2] in (2, 4) and page.extrasamples[0] == PREMULTIPLIED:
        array = _straight(array)
    return array


def _straight(array: np.ndarray) -> np.ndarray:
    """Divides colours by alpha; pixels of alpha 0 become black."""
    top = TOP.get(array.dtype.str[1:], 1)
    alpha = array[..., -1:]
    colours = array[..., :-1] * (top / np.where(alpha > 0, alpha, np.inf))
    if array.dtype.kind == "u":
        colours = np.minimum(np.round(colours), top)
    return np.concatenate([colours.astype(array.dtype), alpha], 2)


def tiff_bytes(raster: Raster) -> bytes:
    """Encodes pixels of uint8, uint16 or float32 as a deflated TIFF."""
    array, icc = raster.array, raster.icc
    height, width, channels = array.shape
    directory = _directory(raster)
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


def _directory(raster: Raster) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Returns the tags of EXIF and resolution."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    if raster.exif:
        block = Image.Exif()
        block.load(raster.exif)
        for tag in block:
            directory[tag] = block.get_ifd(tag) or block[tag]
    if raster.dpi:
        directory[ExifTags.Base.ResolutionUnit] = 2
        directory[X_RESOLUTION], directory[Y_RESOLUTION] = raster.dpi
    return directory
