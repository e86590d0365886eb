"""Conversion of images in memory (torch, numpy, Pillow) to and from float tensors (B, C, H, W).

Results have the type, dtype and layout of the input.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from genprior.core.errors import SettingError
from genprior.io.decode import pillow_pixels

TOP = {torch.uint8: 255, torch.uint16: 65535}
HIGHEST, LOWEST = 7.0, -6.0  # [0, 1] with 6 standard deviations of noise of level 1
Restore = Callable[[Tensor], Any]


def to_tensor(image: Any) -> tuple[Tensor, Restore]:
    """Converts an image or a batch to a tensor, and returns the inverse conversion too.

    Floats outside [0, 1], due to noise, are accepted. Above 7 or below -6 the scale is assumed
    to be wrong, and an error is raised. float64 tensors stay float64; all else becomes float32.

    Arguments:
        image: A torch tensor (B, C, H, W) or (C, H, W), a numpy array (H, W), (H, W, C) or
            (B, H, W, C), of uint8, uint16, or floats in [0, 1]; or a Pillow image, grey or
            RGB, with or without alpha, rotated by its EXIF orientation. C is 1 or 3.

    Returns:
        The tensor (B, C, H, W), and a function that turns such a tensor into the type, dtype,
        layout and device of `image`, integers rounded to nearest. Given several images where
        `image` was one, it returns a batch (for Pillow, a list). The size may differ from that
        of `image`; the alpha of a Pillow image is resized.

    Raises:
        ValueError: The type, dtype, layout or scale is not one of these, or there are no pixels,
            NaN or infinite values. The returned function raises it for NaN and infinite values.

    >>> tensor, restore = to_tensor(np.full((4, 6, 3), 51, np.uint8))
    >>> tensor.shape, round(tensor.max().item(), 4)
    (torch.Size([1, 3, 4, 6]), 0.2)
    >>> restore(tensor)[0, 0]
    array([51, 51, 51], dtype=uint8)
    """
    if isinstance(image, Tensor):
        return _from_torch(image)
    if isinstance(image, np.ndarray):
        return _from_numpy(image)
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    raise ValueError(
        "an image must be a torch tensor, a numpy array or a Pillow image, "
        f"got {type(image).__name__}"
    )


def _from_torch(image: Tensor) -> tuple[Tensor, Restore]:
    single = image.ndim == 3
    batch = image[None] if single else image
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise ValueError(
            "a tensor must be (B, C, H, W) or (C, H, W) with 1 or 3 channels, "
            f"got {list(image.shape)}"
        )
    dtype, device = image.dtype, image.device

    def restore(result: Tensor) -> Tensor:
        values = _to_dtype(result, dtype).to(device)
        return values[0] if single and len(values) == 1 else values

    return _to_unit_range(batch), restore


def _from_numpy(image: np.ndarray) -> tuple[Tensor, Restore]:
    channels_last = image[..., None] if image.ndim == 2 else image
    if channels_last.ndim not in (3, 4) or channels_last.shape[-1] not in (1, 3):
        raise ValueError(
            "an array must be (H, W), (H, W, C) or (B, H, W, C) with 1 or 3 channels, "
            f"got {list(image.shape)}: move its channels last, and split alpha off"
        )
    native = np.ascontiguousarray(channels_last, image.dtype.newbyteorder("="))
    if native.dtype.str[1:] not in ("u1", "u2", "f2", "f4", "f8"):
        raise ValueError(f"an array must be uint8, uint16 or float, got {image.dtype}")
    # A copy: arrays may be read-only. float64 is the default of numpy, so it becomes float32.
    values = torch.tensor(native)
    values = values.float() if values.is_floating_point() else values
    batch = values if values.ndim == 4 else values[None]
    dtype = values.dtype

    def restore(result: Tensor) -> np.ndarray:
        array = _to_dtype(result, dtype).cpu().permute(0, 2, 3, 1).numpy().astype(image.dtype)
        array = array[..., 0] if image.ndim == 2 and array.shape[-1] == 1 else array
        return array[0] if image.ndim < 4 and len(array) == 1 else array

    return _to_unit_range(batch.permute(0, 3, 1, 2).contiguous()), restore


def _from_pillow(image: Image.Image) -> tuple[Tensor, Restore]:
    array = pillow_pixels(ImageOps.exif_transpose(image))
    colours = array.shape[2] - 1 + array.shape[2] % 2
    tensor, restore_array = _from_numpy(array[:, :, :colours])
    alpha = array[:, :, colours:]

    def restore(result: Tensor) -> Image.Image | list[Image.Image]:
        arrays = restore_array(result)
        arrays = arrays if arrays.ndim == 4 else arrays[None]
        images = [Image.fromarray(_append_alpha(pixels, alpha)) for pixels in arrays]
        return images[0] if len(images) == 1 else images

    return tensor, restore


def _append_alpha(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    if alpha.shape[2]:
        if alpha.shape[:2] != pixels.shape[:2]:
            values, restore = _from_numpy(alpha)
            size = pixels.shape[:2]
            alpha = restore(interpolate(values, size, mode="bilinear", antialias=True))
        pixels = np.concatenate([pixels, alpha], 2)
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _to_unit_range(values: Tensor) -> Tensor:
    """Scales integers to [0, 1], and checks the range of floats."""
    if 0 in values.shape:
        raise ValueError(f"an image has no pixels: its shape is {list(values.shape)}")
    if values.dtype in TOP:
        return values.float() / TOP[values.dtype]
    if not values.is_floating_point():
        kind = str(values.dtype).removeprefix("torch.")
        raise ValueError(f"an image must be uint8, uint16 or float in [0, 1], got {kind}")
    check_floats(values)
    return values if values.dtype == torch.float64 else values.float()


def check_floats(values: Tensor) -> None:
    """Raises if floats cannot be an image in [0, 1], even a noisy one.

    Raises:
        ValueError: A value is NaN, infinite, above 7 or below -6.
    """
    if not values.isfinite().all():
        raise ValueError("the image holds NaN or infinite values: replace them by numbers first")
    low, high = values.min().item(), values.max().item()
    if high > HIGHEST or low < LOWEST:
        raise ValueError(
            f"floats must be in [0, 1], got values from {low:.4g} to {high:.4g}: "
            "rescale them (divide 8-bit values by 255)"
        )


def _to_dtype(result: Tensor, dtype: torch.dtype) -> Tensor:
    """Converts a result to `dtype`; clips and rounds to nearest if that is an integer."""
    if not result.isfinite().all():
        raise ValueError("the result holds NaN or infinite values: run in float32")
    result = result.detach()
    if dtype not in TOP:
        return result.to(dtype)
    return (result.float().clamp(0, 1) * TOP[dtype] + 0.5).floor().to(dtype)


def samples_like(x: Tensor, back: Callable[[Tensor], Any], single: bool) -> Any:
    """Converts samples (B, K, C, H, W) by `back`, and drops B if there is a `single` image."""
    flat = back(x.flatten(0, 1))
    return flat if single else flat.reshape(*x.shape[:2], *flat.shape[1:])


def floats_like(y: Any, x: Tensor, single: bool) -> Tensor | np.ndarray:
    """Returns x (B, C, H, W) as floats in the layout of y."""
    if not isinstance(y, np.ndarray | Image.Image):
        return x[0] if single else x
    array = x.permute(0, 2, 3, 1).numpy()
    if not single:
        return array
    return array[0, ..., 0] if np.ndim(y) == 2 and x.shape[1] == 1 else array[0]


def noise_levels(noise_std: float | Sequence[float] | Tensor, y: Tensor, images: bool) -> Tensor:
    """Returns the noise level of each measurement.

    Arguments:
        noise_std: A number >= 0, or one per measurement.
        y: The measurements, shape (B, ...).
        images: Whether the measurements are images in [0, 1]; levels above 1 then raise.

    Returns:
        Shape (B,), with the dtype and device of y.

    Raises:
        ValueError: The number of levels is neither 1 nor B, or a level is negative or not finite.
        SettingError: `noise_std` is a string, or a level of images is above 1.
    """
    if isinstance(noise_std, str):
        raise SettingError(f"noise_std must be a number or one for each image, got {noise_std!r}")
    try:
        sigma = torch.as_tensor(noise_std, dtype=y.dtype, device=y.device).flatten()
    except (TypeError, ValueError, RuntimeError):
        raise SettingError(
            f"noise_std must be a number or one for each image, got {noise_std!r}"
        ) from None
    if sigma.numel() not in (1, len(y)):
        raise ValueError(
            f"noise_std must be one number or one for each of the {len(y)} images, "
            f"got {sigma.numel()}"
        )
    if not (sigma.isfinite().all() and (sigma >= 0).all()):
        raise ValueError(
            f"noise_std must be >= 0 and finite, in units of [0, 1] (25/255 is 0.098); "
            f"got {noise_std}"
        )
    if images and (sigma > 1).any():
        raise SettingError(
            f"noise levels are in units of [0, 1], and {sigma.max():g} is above 1: divide the "
            f"level of 8-bit images by 255 (25/255 is 0.098)"
        )
    return sigma.expand(len(y))
