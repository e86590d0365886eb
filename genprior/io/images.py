"""Reading and writing of image files as float tensors (B, C, H, W) in [0, 1].

All image files of the package are read and written here. Transparency, bit depth, colour profile,
EXIF, resolution and comments are kept if the written format can store them. Transparency that it
cannot store raises an error.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genprior.core.atomic_files import AtomicFiles, write_atomic
from genprior.core.errors import ImageError
from genprior.io.arrays import check_floats
from genprior.io.decode import decode, sniff, upright_size
from genprior.io.encode import BITS, WITH_ALPHA, encode
from genprior.io.jpeg_coding import JPEGCoding
from genprior.io.limits import MAX_PIXELS
from genprior.io.raster import FORMATS, Raster

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "ImageError", "ImageFile"]
__all__ += ["Mask", "image_files", "read_image", "read_mask", "read_size", "write_image"]

FORMAT_OF = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".npy": "NPY",
}
WRITABLE = tuple(FORMAT_OF)
# Formats that are read only: their results are written as PNG.
READ_ONLY_OF = {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".avif": "AVIF"}
READABLE = FORMAT_OF | READ_ONLY_OF
# An NPY file is read as an image if given by name, but ignored in a folder.
SUFFIXES = tuple(suffix for suffix in READABLE if suffix != ".npy")
# Bytes of a pixel in the largest format (four float64), and room for metadata.
BYTES_PER_PIXEL, OTHER_BYTES, PART = 32, 2**26, 2**20
MADE = ".genprior"  # part of the file names of results


@dataclass(frozen=True, eq=False)
class ImageFile:
    """One image with the metadata of its file.

    Attributes:
        pixels: Colours (1, C, H, W), C = 1 or 3, float32, in [0, 1]; values of float files may
            be somewhat outside (noise), and are not clipped.
        alpha: Opacity (1, 1, H, W) in [0, 1]; None if the file has none.
        bits: 8, 16, or 32 for floats.
        icc: Colour profile.
        exif: EXIF block; the orientation is applied to the pixels and removed from it.
        format: One of `FORMATS`, "AVIF", "HEIF" or "NPY".
        mode: Pixel mode of the file, for messages.
        name: Path of the file relative to the given folder; "-" if it has none.
        dpi: Horizontal and vertical resolution in pixels per inch; None if the file has none.
        text: Text chunks of a PNG by keyword; the comment of a JPEG as "Comment".
        coding: Quantisation tables and sampling of the JPEG file that the pixels were read from.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    format: str = "PNG"
    mode: str = "RGB"
    name: Path = Path("-")
    dpi: tuple[float, float] | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    coding: JPEGCoding | None = None

    @property
    def is_transparent(self) -> bool:
        """Whether any pixel is not fully opaque."""
        return self.alpha is not None and bool((self.alpha < 1).any())


def image_files(folder: Path, recursive: bool = False) -> list[Path]:
    """Returns the image files of a folder, recognised by suffix, sorted by path.

    Hidden files, files in hidden folders, and results of earlier runs (*.genprior.*) are skipped.

    Raises:
        ImageError: The folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder")
    pattern = "**/*" if recursive else "*"
    files = [p for p in sorted(folder.glob(pattern)) if p.suffix.lower() in SUFFIXES]
    files = [p for p in files if p.is_file() and not _is_hidden(p.relative_to(folder))]
    if not files:
        raise ImageError(f"no image in {folder} (of {', '.join(SUFFIXES)})")
    inputs = [p for p in files if MADE not in p.suffixes]
    if not inputs:
        raise ImageError(
            f"{folder} holds only results of earlier runs (*{MADE}.*): give the files by name"
        )
    return inputs


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Reads an image file, and applies its EXIF orientation.

    Formats are PNG, JPEG, WebP, BMP, TIFF (8 or 16 bits, float), NPY ((H, W) or (H, W, C)), AVIF
    and HEIC (by the package pillow-heif), grey or RGB, with or without alpha. Palettes and CMYK
    become RGB. 16 bits stay 16 bits; those of AVIF and HEIC become 8.

    Arguments:
        path: The file.
        max_pixels: Larger images raise an error before they are decoded.

    Raises:
        ImageError: The file is missing, is no image, is damaged or too large, has the suffix of
            another format, or holds several images, NaN, values far from [0, 1] or unsupported
            channels.
    """
    path = Path(path)
    return parse_image(read_bytes(path, max_pixels), path, max_pixels)


def read_bytes(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """Returns the content of an image file or a pipe.

    Raises:
        ImageError: It cannot be read, is a device, does not begin like an image, or has more
            bytes than any image of `max_pixels` pixels.
    """
    try:
        status = path.stat()
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            raise ImageError(f"{path}: is a device, not an image file: check the name")
        with path.open("rb") as file:
            return _read_image_bytes(file, path, BYTES_PER_PIXEL * max_pixels + OTHER_BYTES)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImageError(f"{path}: cannot be read ({reason}): check the name") from error


def _read_image_bytes(file: BinaryIO, path: Path, limit: int) -> bytes:
    """Reads a file part by part, for a pipe may not end."""
    parts, count = [], 0
    while part := file.read(PART):
        if not parts:
            _format(part, path)
        parts.append(part)
        count += len(part)
        if count > limit:
            raise ImageError(f"{path}: has more than {limit} bytes: shrink it or raise max_pixels")
    return b"".join(parts)


def read_size(path: Path | str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Returns width and height of the image that `read_image` returns, mostly from the header.

    Raises:
        ImageError: As `read_image`, for what is read.
    """
    path = Path(path)
    return upright_size(read_bytes(path, max_pixels), str(path), max_pixels)


def parse_image(data: bytes, path: Path, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Decodes the content of an image file; `path` gives its name, else as `read_image`."""
    return replace(_image_file(_raster(data, path, max_pixels), path), name=Path(path.name))


def read_bits(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads the colours of an image file as (H, W, C) uint8, rounded if it has more bits.

    Raises:
        ImageError: As `read_image`.
    """
    raster = _raster(read_bytes(path, max_pixels), path, max_pixels)
    if raster.array.dtype == np.uint8:  # conversion by way of floats would be much slower
        count = raster.array.shape[2]
        return np.ascontiguousarray(raster.array[:, :, : count - 1 + count % 2])
    return in_bytes(_image_file(raster, path).pixels)


def in_bytes(pixels: Tensor) -> np.ndarray:
    """Converts one image (1, C, H, W) in [0, 1] to (H, W, C) uint8, clipped and rounded."""
    return pixels[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


def _raster(data: bytes, path: Path, max_pixels: int) -> Raster:
    raster = decode(data, str(path), max_pixels)
    expected = READABLE.get(path.suffix.lower(), raster.format)
    if raster.format != expected:
        raise ImageError(
            f"{path}: holds {raster.format}, not {expected}: rename it to "
            f"{suffix_of(raster.format)}"
        )
    return raster


def suffix_of(format: str) -> str:
    """Returns the usual suffix of a format."""
    return next(suffix for suffix, other in READABLE.items() if other == format)


def result_suffix(suffix: str) -> str:
    """Returns the suffix of the result for a file: the same, or .png if that is read only."""
    return ".png" if suffix.lower() in READ_ONLY_OF else suffix


def suffix_for(data: bytes, path: Path) -> str:
    """Returns the suffix of a result in the format of the content of an image file.

    Raises:
        ImageError: The content is not an image.
    """
    return result_suffix(suffix_of(_format(data, path)))


def _format(data: bytes, path: Path) -> str:
    try:
        return sniff(data)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def _image_file(raster: Raster, path: Path) -> ImageFile:
    # A copy: numpy calls a flipped single row or column contiguous, and torch refuses it.
    array = torch.from_numpy(raster.array.copy()).permute(2, 0, 1)[None]
    bits = 8 * raster.array.dtype.itemsize
    if bits == 32:
        try:
            check_floats(array)
        except ValueError as error:
            raise ImageError(f"{path}: {error}") from None
    else:
        array = array.float().div_(2**bits - 1)
    colours = array.shape[1] - 1 + array.shape[1] % 2
    pixels = array[:, :colours].contiguous()
    alpha = array[:, colours:].contiguous() if array.shape[1] > colours else None
    return ImageFile(
        pixels, alpha, bits, raster.icc, raster.exif, raster.format, raster.mode,
        dpi=raster.dpi, text=raster.text, coding=raster.coding,
    )


WHITE = "white pixels are filled in"
WHITE_ON_BLACK = "white pixels are filled in, transparent ones count as black"
PAINTED = "it has a single colour, so painted pixels are filled in, transparent ones are kept"
SAME_COLOUR = 2.5 / 255  # browsers round the colours of half-transparent pixels


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask that was read from a file.

    Attributes:
        hole: The pixels to fill in, (1, 1, H, W) bool.
        rule: The rule by which the hole follows from the file, for messages.
    """

    hole: Tensor
    rule: str

    @property
    def used_alpha(self) -> bool:
        """Whether the transparency of the file was used."""
        return self.rule != WHITE


def read_mask(path: Path | str, max_pixels: int = MAX_PIXELS) -> Mask:
    """Reads a mask: white = fill in.

    Pixels whose grey level times opacity is at least half of white are the hole. But if all
    pixels that are painted (at least half opaque) have the same colour and others are
    transparent, the painted pixels are the hole, whatever their colour.

    Raises:
        ImageError: As `read_image`, or the largest value of the mask is 1 instead of 255.
    """
    mask = read_image(path, max_pixels)
    grey = mask.pixels.mean(1, keepdim=True)
    if mask.is_transparent:
        painted = mask.alpha >= 0.5
        colours = mask.pixels[painted.expand_as(mask.pixels)].reshape(mask.pixels.shape[1], -1)
        if 0 < colours.shape[1] < grey.numel() and _is_one_colour(colours):
            return Mask(painted, PAINTED)
    if mask.bits < 32 and 0 < grey.max().item() * (2**mask.bits - 1) < 1.5:
        raise ImageError(
            f"{path}: the largest value of the mask is 1, but a hole is white: multiply it by 255"
        )
    if mask.is_transparent:
        return Mask(grey * mask.alpha >= 0.5, WHITE_ON_BLACK)
    return Mask(grey >= 0.5, WHITE)


def _is_one_colour(colours: Tensor) -> bool:
    """Returns whether the columns of (C, N) are equal up to rounding."""
    return bool((colours.amax(1) - colours.amin(1) <= SAME_COLOUR).all())


def write_image(
    path: Path | str, image: ImageFile | Tensor, like: ImageFile | None = None,
    files: AtomicFiles | None = None,
) -> None:
    """Writes an image file atomically; the suffix selects the format.

    PNG, TIFF, BMP, WebP and NPY are written without loss, JPEG at quality 95. Values are
    clipped to [0, 1] and rounded to the nearest level; floats (TIFF and NPY of 32 bits) are
    written unchanged.

    Arguments:
        path: The file; an older one is overwritten.
        image: An image file, or colours (C, H, W) or (1, C, H, W) in [0, 1].
        like: The image file that the colours were computed from. Its alpha (resized to them),
            its bit depth, its colour profile, EXIF, resolution and comments are written too, if
            the format has them. Without it, 8 bits are written, or floats for NPY.
        files: Files that are renamed together with this one; None writes it at once.

    Raises:
        ImageError: The suffix is unknown, there are NaN or infinite values, the format cannot
            store the transparency or the size, or the path cannot be written.
    """
    path = Path(path)
    format = FORMAT_OF.get(path.suffix.lower())
    if format is None:
        raise ImageError(f"{path}: unknown suffix: use one of {', '.join(FORMAT_OF)}")
    data = image_bytes(image, format, like, path)
    try:
        (files.write if files else write_atomic)(path, lambda file: file.write(data))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImageError(f"{path}: cannot be written ({reason}): choose another path") from error


def image_bytes(
    image: ImageFile | Tensor, format: str, like: ImageFile | None = None, path: Path = Path("-")
) -> bytes:
    """Returns the content of an image file in a format; `path` is for messages only.

    Other arguments and errors: see `write_image`.
    """
    if isinstance(image, Tensor):
        image = _with_metadata(_single(image, path), like, format)
    _check_finite(image, path)
    array = _stored_values(image, format)[0].permute(1, 2, 0).numpy()
    try:
        return encode(
            Raster(array, format, image.mode, image.icc, image.exif, image.dpi, image.text)
        )
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _single(pixels: Tensor, path: Path) -> Tensor:
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[0] != 1 or pixels.shape[1] not in (1, 3):
        raise ImageError(
            f"{path}: pixels must be one image (C, H, W) with 1 or 3 channels, "
            f"got {list(pixels.shape)}"
        )
    return pixels.detach().float().cpu()


def _with_metadata(pixels: Tensor, like: ImageFile | None, format: str) -> ImageFile:
    if like is None:
        return ImageFile(pixels, bits=32 if format == "NPY" else 8)
    alpha = like.alpha
    if alpha is not None and alpha.shape[2:] != pixels.shape[2:]:
        alpha = interpolate(alpha, pixels.shape[2:], mode="bilinear", antialias=True)
    # the profile of a grey image does not fit colours, nor the other way round
    same_colours = like.pixels.shape[1] == pixels.shape[1]
    icc = like.icc if same_colours else None
    return replace(like, pixels=pixels, alpha=alpha, icc=icc, coding=None)


def _check_finite(image: ImageFile, path: Path) -> None:
    bad = int((~image.pixels.isfinite()).sum())
    if bad:
        raise ImageError(
            f"{path}: {bad} of {image.pixels.numel()} values are NaN or infinite, nothing is "
            "written: run in float32, or with less guidance"
        )


def _stored_values(image: ImageFile, format: str) -> Tensor:
    """Returns the values to store: clipped, rounded, alpha last if it is kept."""
    channels, alpha = image.pixels, image.alpha
    if alpha is not None and (format in WITH_ALPHA or image.is_transparent):
        channels = torch.cat([channels, alpha], 1)
    bits = min(image.bits, BITS[format])
    if bits == 32:
        return channels
    scaled = channels.double().clamp(0, 1).mul_(2**bits - 1).add_(0.5).floor_()
    return scaled.to(torch.uint8 if bits == 8 else torch.uint16)
