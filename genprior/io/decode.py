"""Image decoder: bytes of a file to a `Raster` (pixels at full bit depth, upright, and metadata).

tifffile decodes TIFF of more than 8 bits, Pillow all else. Pillow unpacks 16-bit colours of a PNG
to their high bytes only; such a file is decoded twice, the second time to the low bytes. The
decoder of torchvision is not used: on some damaged PNG it ends the process.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin

from genprior.core.errors import ImageError
from genprior.io.jpeg_coding import read_coding
from genprior.io.npy import read_header
from genprior.io.raster import (
    COMMENT,
    FORMATS,
    READ_ONLY,
    Raster,
    check_size,
    orientation_and_exif,
    resolution,
    upright,
)
from genprior.io.tiff import read_tiff

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Raw modes with which Pillow unpacks the bytes of 16-bit pixels, by the raw mode of the PNG: for
# colours the high bytes, then the low bytes; for grey with alpha all four bytes.
DEEP_RAW_MODES = {
    "I;16B": ("I;16B",),
    "LA;16B": ("RGBA",),
    "RGB;16B": ("RGB;16B", "RGB;16L"),
    "RGBA;16B": ("RGBA;16B", "RGBA;16L"),
}
HIGHEST_LEVEL = {"L;2": 3, "L;4": 15}  # of grey PNG of 2 and 4 bits
# The brands of an ISO media file that holds an image, and the packages that read it.
BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIF": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
PACKAGES = {"AVIF": "--upgrade pillow (11.3 or newer)", "HEIF": "pillow-heif"}
# Text chunks in which some programs keep EXIF, with the orientation that is applied to the pixels.
EMBEDDED_EXIF = "Raw profile type"
XMP, XMP_ORIENTATION = "XML:com.adobe.xmp", re.compile(
    r'\s*tiff:Orientation="\d"|\s*<tiff:Orientation>\d</tiff:Orientation>'
)
PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "F")
T = TypeVar("T")
CONVERTED_MODES = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}


def decode(data: bytes, name: str, max_pixels: int) -> Raster:
    """Decodes an image file of any supported format.

    Arguments:
        data: Content of the file.
        name: Name of the file in error messages.
        max_pixels: Larger images raise an error when the header is read, before decoding.

    Raises:
        ImageError: The file is not an image, is damaged or too large, or cannot be read without
            loss.
    """
    return _with_name_in_errors(lambda: _decode(data, max_pixels), name)


def upright_size(data: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Returns width and height of what `decode` returns; NPY and TIFF files are fully decoded.

    Arguments and errors: see `decode`.
    """

    def size() -> tuple[int, int]:
        format = sniff(data)
        if format in ("NPY", "TIFF"):
            return _decode(data, max_pixels).array.shape[1::-1]
        image = _open(format, data)
        check_size(image.height, image.width, max_pixels)
        try:  # the EXIF block of a PNG may follow the pixels
            exif = image.getexif()
        except Exception:  # damaged pixels: `decode` raises for them
            return image.size
        return image.size[::-1] if orientation_and_exif(exif, format)[0] >= 5 else image.size

    return _with_name_in_errors(size, name)


def _with_name_in_errors(read: Callable[[], T], name: str) -> T:
    """Returns `read()`; errors are raised as `ImageError` with the name of the file."""
    try:
        # Decoders only warn about metadata; for damaged pixels they raise.
        with warnings.catch_warnings(action="ignore"):
            return read()
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise arbitrary exceptions on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"{name}: damaged or cut short ({reason:.120}): get another copy of it"
        raise ImageError(message) from error


def sniff(data: bytes) -> str:
    """Returns the format of a file, from its first bytes.

    Raises:
        ImageError: It is neither one of `FORMATS` and `READ_ONLY` nor NPY, or a package that reads
            it is missing.
    """
    if not data:
        raise ImageError("the file is empty: get another copy of it")
    if data.startswith(b"\x93NUMPY"):
        return "NPY"
    if data.startswith(TIFF_STARTS):
        return "TIFF"
    Image.init()
    for format in FORMATS:
        if Image.OPEN[format][1](data[:16]) is True:
            return format
    format = _media_format(data)
    if format is None:
        raise ImageError(
            f"not an image in {', '.join((*FORMATS, *READ_ONLY))} or NPY format: convert it to PNG"
        )
    if not _can_be_read(format, data):
        raise ImageError(
            f"holds {format}, which the installed packages cannot read: run pip install "
            f"{PACKAGES[format]}, or convert it to PNG"
        )
    return format


def _media_format(data: bytes) -> str | None:
    """Returns the format of an ISO media file, from the brands in its first box."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[at : at + 4] for at in range(8, end, 4)}
    return next((format for format in BRANDS if brands & set(BRANDS[format])), None)


def _can_be_read(format: str, data: bytes) -> bool:
    """Returns whether Pillow reads a format of `READ_ONLY`; registers pillow-heif for HEIF."""
    if format == "HEIF":
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            return False
        register_heif_opener()
    return format in Image.OPEN and Image.OPEN[format][1](data[:16]) is True


def _decode(data: bytes, max_pixels: int) -> Raster:
    format = sniff(data)
    if format == "NPY":
        return _numpy_file(data, max_pixels)
    deep = read_tiff(data, max_pixels) if format == "TIFF" else None
    return deep or _with_pillow(format, data, max_pixels)


def _with_pillow(format: str, data: bytes, max_pixels: int) -> Raster:
    image = _open(format, data)
    check_size(image.height, image.width, max_pixels)
    # A JPEG may hold further images (depth, preview); `read_tiff` has counted those of a TIFF.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and format not in ("JPEG", "TIFF"):
        raise ImageError(f"holds {frames} images: split it into one file each")
    mode, profile = image.mode, image.info.get("icc_profile")
    raw_mode = image.tile[0].args if format == "PNG" and image.tile else None
    if format == "PNG":
        _open(format, data).verify()  # checksums, which decoding ignores
        _scale_transparent_level(image, raw_mode)
    deep = _png_16_bit(image, data) if raw_mode in DEEP_RAW_MODES else None
    orientation, exif = orientation_and_exif(image.getexif(), format)
    array = pillow_pixels(image) if deep is None else deep
    if deep is not None:
        mode = mode if ";" in mode else f"{mode};16"
    if mode == "CMYK":
        profile = None
    if format != "TIFF":  # Pillow applies the orientation of a TIFF itself
        array = upright(array, orientation)
    coding = read_coding(image) if format == "JPEG" else None
    return Raster(
        array, format, mode, profile, exif, _resolution(image, format), _text(image), coding
    )


def _scale_transparent_level(image: Image.Image, raw_mode: str | None) -> None:
    """Scales the transparent level of 2- and 4-bit grey to 8 bits, as Pillow scales the pixels."""
    top = HIGHEST_LEVEL.get(raw_mode)
    if top and "transparency" in image.info:
        image.info["transparency"] = (image.info["transparency"] & top) * 255 // top


def _resolution(image: Image.Image, format: str) -> tuple[float, float] | None:
    """Returns the resolution; that in the EXIF block of a JPEG stays there."""
    if format == "JPEG" and image.info.get("jfif_unit") not in (1, 2):
        return None
    if format == "TIFF" and ExifTags.Base.XResolution not in image.tag_v2:
        return None  # Pillow sets 1
    return resolution(image.info.get("dpi"))


def _text(image: Image.Image) -> dict[str, str]:
    """Returns the text chunks of a PNG, or the comment of a JPEG; the image has been loaded."""
    text = dict(getattr(image, "text", {}))
    comment = image.info.get("comment")
    if isinstance(comment, bytes):
        text[COMMENT] = comment.decode("utf-8", "surrogateescape")
    text = {key: value for key, value in text.items() if not key.startswith(EMBEDDED_EXIF)}
    if XMP in text:
        text[XMP] = PngImagePlugin.iTXt(XMP_ORIENTATION.sub("", text[XMP]), "", "")
    return text


def _open(format: str, data: bytes) -> ImageFile.ImageFile:
    """Reads the header. `Image.open` would also apply the global pixel limit of Pillow."""
    Image.init()
    return Image.OPEN[format][0](io.BytesIO(data), "")


def pillow_pixels(image: Image.Image) -> np.ndarray:
    """Returns pixels (H, W, C) of a Pillow image: uint8, uint16 or float32, alpha last if any.

    Palettes become RGB, and CMYK becomes RGB by its colour profile if it has one.

    Raises:
        ImageError: The mode cannot be converted without loss.
    """
    mode, transparent = image.mode, image.info.get("transparency")
    image.load()
    if mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)[:, :, None]
        return pixels if transparent is None else _with_alpha(pixels, transparent)
    if mode in ("1", "L", "RGB", "P") and transparent is not None:
        image = image.convert("LA" if mode in ("1", "L") else "RGBA")
    elif mode in CONVERTED_MODES:
        image = image.convert(CONVERTED_MODES[mode])
    elif mode == "CMYK":
        image = _cmyk_to_rgb(image)
    elif mode not in PLAIN_MODES:
        raise ImageError(f"pixels of mode {mode} are not supported: convert it to RGB or grey")
    return np.asarray(image).reshape(image.height, image.width, -1)


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    try:
        standard = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, io.BytesIO(profile), standard, outputMode="RGB")
    except ImageCms.PyCMSError:
        return image.convert("RGB")


def _png_16_bit(image: ImageFile.ImageFile, data: bytes) -> np.ndarray:
    """Loads a PNG and returns its 16-bit pixels."""
    parts = []
    for k, raw_mode in enumerate(DEEP_RAW_MODES[image.tile[0].args]):
        part = image if k == 0 else _open("PNG", data)
        part.tile = [part.tile[0]._replace(args=raw_mode)]
        part.load()
        parts.append(np.asarray(part))
    if len(parts) == 2:
        array = parts[0].astype(np.uint16) << 8 | parts[1]
    elif parts[0].ndim == 3:  # grey and alpha, two bytes each
        array = parts[0].view(">u2").astype(np.uint16)
    else:
        array = parts[0].astype(np.uint16)[:, :, None]
    transparent = image.info.get("transparency")
    return array if transparent is None else _with_alpha(array, transparent)


def _with_alpha(array: np.ndarray, transparent: int | tuple[int, ...]) -> np.ndarray:
    opaque = (array != np.asarray(transparent)).any(2, keepdims=True)
    return np.concatenate([array, opaque.astype(np.uint16) * 65535], 2)


def _numpy_file(data: bytes, max_pixels: int) -> Raster:
    shape, dtype = read_header(io.BytesIO(data))
    if dtype.str[1:] not in ("b1", "u1", "u2", "f2", "f4", "f8"):
        raise ImageError(f"holds {dtype}: save uint8, uint16, bool or float")
    if len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (2,), (3,), (4,)):
        raise ImageError(f"has shape {shape}: save it as (H, W) or (H, W, C), C from 1 to 4")
    check_size(shape[0], shape[1], max_pixels)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    array = array.reshape(shape[0], shape[1], -1)
    if dtype.kind == "b":
        array = array.astype(np.uint8) * 255
    else:
        array = array.astype(np.float32 if dtype.kind == "f" else dtype.newbyteorder("="))
    return Raster(array, "NPY", dtype.name)
