"""Bytes of an image file -> `Raster`: pixels with the bits they have, upright, and metadata.

Pillow drops 16-bit colour to 8 bits, so such PNG is decoded by torchvision and TIFF by tifffile.
"""

import io
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image, ImageCms, ImageFile

from genprior.core.errors import ImageError
from genprior.io.raster import FORMATS, Raster, check_size, photo_exif, upright
from genprior.io.tiff import read_tiff

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "F")
T = TypeVar("T")
CONVERTED_MODES = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}


def decode(data: bytes, name: str, max_pixels: int) -> Raster:
    """Decodes a file of any format the package reads.

    Arguments:
        data: The whole file.
        name: What messages call it.
        max_pixels: Larger pictures are refused from their header, before they take memory.

    Raises:
        ImageError: Not an image, damaged, too large, or of a kind that cannot be kept whole.
    """
    return _named(lambda: _decode(data, max_pixels), name)


def upright_size(data: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Width and height of what `decode` gives; arrays and TIFF are decoded for it.

    Arguments and errors: see `decode`.
    """

    def size() -> tuple[int, int]:
        format = sniff(data)
        if format in ("NPY", "TIFF"):
            return _decode(data, max_pixels).array.shape[1::-1]
        image = _open(format, data)
        check_size(image.height, image.width, max_pixels)
        try:  # that of a PNG may stand behind the pixels
            exif = image.getexif()
        except Exception:  # pixels are damaged, which who reads them will be told
            return image.size
        return image.size[::-1] if photo_exif(exif, format)[0] >= 5 else image.size

    return _named(size, name)


def _named(read: Callable[[], T], name: str) -> T:
    """What `read` gives; its errors say which file they are about."""
    try:
        # Decoders warn about metadata; about pixels they raise.
        with warnings.catch_warnings(action="ignore"):
            return read()
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything at all on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"{name}: damaged or cut short ({reason:.120}): get another copy of it"
        raise ImageError(message) from error


def sniff(data: bytes) -> str:
    """The format of a file, by how it begins.

    Raises:
        ImageError: It is none of `FORMATS`, nor NPY.
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
    raise ImageError(f"not an image in {', '.join(FORMATS)} or NPY format: convert it to PNG")


def _decode(data: bytes, max_pixels: int) -> Raster:
    format = sniff(data)
    if format == "NPY":
        return _numpy_file(data, max_pixels)
    deep = read_tiff(data, max_pixels) if format == "TIFF" else None
    return deep or _with_pillow(format, data, max_pixels)


def _with_pillow(format: str, data: bytes, max_pixels: int) -> Raster:
    image = _open(format, data)
    check_size(image.height, image.width, max_pixels)
    # A JPEG may carry more pictures (depth, preview) behind the photo; a TIFF is counted before.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and format not in ("JPEG", "TIFF"):
        raise ImageError(f"holds {frames} pictures: split it into one file each")
    mode, profile = image.mode, image.info.get("icc_profile")
    orientation, exif = photo_exif(image.getexif(), format)
    if format == "PNG":
        _open(format, data).verify()  # checksums, which decoding does not look at
    if format == "PNG" and data[24] == 16:  # bits a channel, at a fixed place in the header
        array = _png_16_bit(data, image.info.get("transparency"))
        mode = mode if ";" in mode else f"{mode};16"
    else:
        array = pillow_pixels(image)
    if mode == "CMYK":
        profile = None
    if format != "TIFF":  # which Pillow turns upright by itself
        array = upright(array, orientation)
    return Raster(array, format, mode, profile, exif)


def _open(format: str, data: bytes) -> ImageFile.ImageFile:
    """Reads the header. Unlike `Image.open`, has no limit on pixels that is global state."""
    Image.init()
    return Image.OPEN[format][0](io.BytesIO(data), "")


def pillow_pixels(image: Image.Image) -> np.ndarray:
    """Pixels (H, W, C) of a Pillow image: uint8, uint16 or float32, alpha last if there is any.

    Palettes become colours and CMYK becomes RGB, by its profile when it has one.

    Raises:
        ImageError: The mode is one that would lose something.
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


def _png_16_bit(data: bytes, transparent: int | tuple[int, ...] | None) -> np.ndarray:
    import torch
    from torchvision.io import ImageReadMode, decode_image

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    array = decode_image(encoded, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    opaque_kind = array.shape[2] in (1, 3)
    return _with_alpha(array, transparent) if opaque_kind and transparent is not None else array


def _with_alpha(array: np.ndarray, transparent: int | tuple[int, ...]) -> np.ndarray:
    opaque = (array != np.asarray(transparent)).any(2, keepdims=True)
    return np.concatenate([array, opaque.astype(np.uint16) * 65535], 2)


def _numpy_file(data: bytes, max_pixels: int) -> Raster:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
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
