"""Image files <-> tensors (B, C, H, W) of floats in [0, 1]. The only image I/O.

What a picture is besides its colours (transparency, bits, colour profile, EXIF) is kept from
reading to writing, and nothing is dropped or guessed in silence.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genprior.core.atomic_files import AtomicFiles, write_atomic
from genprior.core.errors import ImageError
from genprior.io.arrays import check_floats
from genprior.io.decode import decode, sniff, upright_size
from genprior.io.encode import BITS, WITH_ALPHA, encode
from genprior.io.limits import MAX_PIXELS
from genprior.io.raster import FORMATS, Raster

__all__ = ["FORMATS", "MAX_PIXELS", "SUFFIXES", "ImageError", "ImageFile"]
__all__ += ["image_files", "read_image", "read_mask", "read_size", "write_image"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
# NPY is an image when named, but not one among the files of a folder.
WRITABLE = (*SUFFIXES, ".npy")
KINDS = ("PNG", "JPEG", "JPEG", "WEBP", "TIFF", "TIFF", "BMP", "NPY")
FORMAT_OF = dict(zip(WRITABLE, KINDS, strict=True))
MADE = ".genprior"  # in the names of results


@dataclass(frozen=True, eq=False)
class ImageFile:
    """One image with all that its file said of it.

    Attributes:
        pixels: Colours (1, C, H, W), C = 1 or 3, float32. In [0, 1]; float files may go
            somewhat beyond (noise), and keep it.
        alpha: Opacity (1, 1, H, W) in [0, 1]; None if the file has none.
        bits: 8, 16, or 32 for floats.
        icc: Colour profile.
        exif: EXIF block; the orientation is applied to the pixels and taken out.
        format: One of `FORMATS`, or "NPY".
        mode: Pixel mode of the file, for messages.
        name: Name of the file, in its folder among those that were given; "-" if it has none.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    format: str = "PNG"
    mode: str = "RGB"
    name: Path = Path("-")

    @property
    def is_transparent(self) -> bool:
        """Whether any pixel is not wholly opaque."""
        return self.alpha is not None and bool((self.alpha < 1).any())


def image_files(folder: Path, recursive: bool = False) -> list[Path]:
    """Image files of a folder, sorted, by their suffix.

    Hidden ones, those in hidden folders, and results of earlier runs (*.genprior.*) are left out.

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
    taken = [p for p in files if MADE not in p.suffixes]
    if not taken:
        raise ImageError(f"{folder} holds no image but results (*{MADE}.*): name the files")
    return taken


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Reads an image file, upright.

    PNG, JPEG, WebP, BMP, TIFF (8 or 16 bits, float) and NPY ((H, W) or (H, W, C)); grey, RGB,
    either with alpha; palettes and CMYK become RGB. 16 bits stay 16 bits.

    Arguments:
        path: The file.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        ImageError: The file is missing, no image, damaged, misnamed, too large, holds several
            pictures, NaN or values far from [0, 1], or channels that cannot be kept.
    """
    path = Path(path)
    return parse_image(read_bytes(path), path, max_pixels)


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        ImageError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImageError(f"{path}: cannot be read ({reason}): check the name") from error


def read_size(path: Path | str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the picture that `read_image` would give, mostly from the header.

    Raises:
        ImageError: As `read_image`, as far as it looks.
    """
    path = Path(path)
    return upright_size(read_bytes(path), str(path), max_pixels)


def parse_image(data: bytes, path: Path, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """As `read_image`, of the content of a file, with the name that it has or had."""
    return replace(_picture(_raster(data, path, max_pixels), path), name=Path(path.name))


def read_bits(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The colours of an image file in 8 bits, (H, W, C) uint8, rounded where they have more.

    Raises:
        ImageError: As `read_image`.
    """
    raster = _raster(read_bytes(path), path, max_pixels)
    if raster.array.dtype == np.uint8:  # not by way of floats, which takes much longer
        count = raster.array.shape[2]
        return np.ascontiguousarray(raster.array[:, :, : count - 1 + count % 2])
    return in_bytes(_picture(raster, path).pixels)


def in_bytes(pixels: Tensor) -> np.ndarray:
    """One image (1, C, H, W) in [0, 1] as (H, W, C) uint8, clipped and rounded."""
    return pixels[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


def _raster(data: bytes, path: Path, max_pixels: int) -> Raster:
    raster = decode(data, str(path), max_pixels)
    expected = FORMAT_OF.get(path.suffix.lower(), raster.format)
    if raster.format != expected:
        raise ImageError(
            f"{path}: holds {raster.format}, not {expected}: rename it to "
            f"{suffix_of(raster.format)}"
        )
    return raster


def suffix_of(format: str) -> str:
    """The usual suffix of a format."""
    return next(suffix for suffix, other in FORMAT_OF.items() if other == format)


def suffix_for(data: bytes, path: Path) -> str:
    """The suffix that the content of an image file should have.

    Raises:
        ImageError: It is no image.
    """
    try:
        return suffix_of(sniff(data))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def _picture(raster: Raster, path: Path) -> ImageFile:
    # a copy, since numpy counts mirrored pixels of a single row or column as contiguous
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
    return ImageFile(pixels, alpha, bits, raster.icc, raster.exif, raster.format, raster.mode)


def read_mask(path: Path | str, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Reads a mask: white = fill in.

    A picture of one colour whose transparency varies is a mask by its transparency:
    transparent = fill in.

    Returns:
        The hole, (1, 1, H, W) bool: True where the mask is at least half of white.

    Raises:
        ImageError: As `read_image`, or the mask counts 0 and 1 where white should be 255.
    """
    picture = read_image(path, max_pixels)
    pixels, alpha = picture.pixels, picture.alpha
    flat = bool((pixels == pixels[..., :1, :1]).all())
    if flat and alpha is not None and bool((alpha != alpha[..., :1, :1]).any()):
        return alpha < 0.5
    grey = pixels.mean(1, keepdim=True)
    if picture.bits < 32 and 0 < grey.max().item() * (2**picture.bits - 1) < 1.5:
        raise ImageError(f"{path}: its brightest value is 1: a hole is white, multiply it by 255")
    return grey >= 0.5


def write_image(
    path: Path | str, image: ImageFile | Tensor, like: ImageFile | None = None,
    files: AtomicFiles | None = None,
) -> None:
    """Writes an image file, whole or not at all; the format follows the suffix.

    PNG, TIFF, BMP, WebP and NPY are written without loss, JPEG at quality 95. Values are
    clipped to [0, 1] and rounded to the nearest level; floats (TIFF and NPY of 32 bits) are
    written as they are.

    Arguments:
        path: Where to; an older file is replaced.
        image: A picture, or colours (C, H, W) or (1, C, H, W) in [0, 1].
        like: The picture the colours come from, which gives them its alpha (resized with
            them), its bits where the format holds them, its colour profile and EXIF. Without
            it 8 bits are written, and floats to NPY.
        files: Those that it appears together with.

    Raises:
        ImageError: Unknown suffix, NaN or infinite values, transparency or a size that the
            format cannot hold, or a place that cannot be written.
    """
    path = Path(path)
    format = FORMAT_OF.get(path.suffix.lower())
    if format is None:
        raise ImageError(f"{path}: unknown suffix: use one of {', '.join(FORMAT_OF)}")
    if isinstance(image, Tensor):
        image = _like(_single(image, path), like, format)
    _check_finite(image, path)
    array = _levels(image, format)[0].permute(1, 2, 0).numpy()
    try:
        data = encode(Raster(array, format, image.mode, image.icc, image.exif))
        (files.write if files else write_atomic)(path, lambda file: file.write(data))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ImageError(f"{path}: cannot be written ({reason}): choose another place") from error


def _single(pixels: Tensor, path: Path) -> Tensor:
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[0] != 1 or pixels.shape[1] not in (1, 3):
        raise ImageError(
            f"{path}: one image (C, H, W) of 1 or 3 channels goes into a file, "
            f"got {list(pixels.shape)}"
        )
    return pixels.detach().float().cpu()


def _like(pixels: Tensor, like: ImageFile | None, format: str) -> ImageFile:
    if like is None:
        return ImageFile(pixels, bits=32 if format == "NPY" else 8)
    alpha = like.alpha
    if alpha is not None and alpha.shape[2:] != pixels.shape[2:]:
        alpha = interpolate(alpha, pixels.shape[2:], mode="bilinear", antialias=True)
    same_colours = like.pixels.shape[1] == pixels.shape[1]  # else the profile is of another space
    return replace(like, pixels=pixels, alpha=alpha, icc=like.icc if same_colours else None)


def _check_finite(image: ImageFile, path: Path) -> None:
    bad = int((~image.pixels.isfinite()).sum())
    if bad:
        raise ImageError(
            f"{path}: {bad} of {image.pixels.numel()} values are NaN or infinite, nothing is "
            "written: run in float32, or with less guidance"
        )


def _levels(image: ImageFile, format: str) -> Tensor:
    """The picture as the format stores it: clipped, rounded, alpha last if it says anything."""
    channels, alpha = image.pixels, image.alpha
    if alpha is not None and (format in WITH_ALPHA or image.is_transparent):
        channels = torch.cat([channels, alpha], 1)
    bits = min(image.bits, BITS[format])
    if bits == 32:
        return channels
    scaled = channels.double().clamp(0, 1).mul_(2**bits - 1).add_(0.5).floor_()
    return scaled.to(torch.uint8 if bits == 8 else torch.uint16)
