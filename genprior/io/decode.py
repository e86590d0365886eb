"""Image decoder: bytes of a file to a `Raster` (pixels at full bit depth, upright, and metadata).

Pillow reduces 16-bit colour to 8 bits, so torchvision decodes such PNG, and tifffile TIFF.
"""

import io
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image, ImageCms, ImageFile

from genprior.core.errors import ImageError
from genprior.io.raster import FORMATS, Raster, check_size, orientation_and_exif, upright
from genprior.io.tiff import read_tiff

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
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
        ImageError: It is neither one of `FORMATS` nor NPY.
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
    # A JPEG may hold further images (depth, preview); `read_tiff` has counted those of a TIFF.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and format not in ("JPEG", "TIFF"):
        raise ImageError(f"holds {frames} images: split it into one file each")
    mode, profile = image.mode, image.info.get("icc_profile")
    orientation, exif = orientation_and_exif(image.getexif(), format)
    if format == "PNG":
        _open(format, data).verify()  # checksums, which decoding ignores
    if format == "PNG" and data[24] == 16:  # bits per channel, at a fixed offset in the header
        array = _png_16_bit(data, image.info.get("transparency"))
        mode = mode if ";" in mode else f"{mode};16"
    else:
        array = pillow_pixels(image)
    if mode == "CMYK":
        profile = None
    if format != "TIFF":  # Pillow applies the orientation of a TIFF itself
        array = upright(array, orientation)
    return Raster(array, format, mode, profile, exif)


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
