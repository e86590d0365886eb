"""Restoration of numpy arrays, with the conventions of `skimage.restoration`.

Images are arrays (..., rows, columns) of any axis order: `channel_axis` tells which axis holds the
colours, None that there is none. Integers are converted to floats in [0, 1], and the result is
float. The prior works on 1 or 3 channels.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from genprior.api.factory import make_operator
from genprior.api.restoration import restore
from genprior.core.errors import SettingError
from genprior.io.arrays import to_tensor
from genprior.operators.base import Operator

__all__ = ["deblur", "denoise", "inpaint", "superres"]

Prior = str | Path | object


def inpaint(
    image: np.ndarray, mask: np.ndarray, *, prior: Prior = "ddpm", noise_std: float = 0.0,
    channel_axis: int | None = None, **options: Any,
) -> np.ndarray:
    """Fills the masked pixels of an image, as `skimage.restoration.inpaint_biharmonic` does.

    Arguments:
        image: The image, (rows, columns) or with a channel axis.
        mask: True or 1 where a pixel is to be filled in, shape (rows, columns).
        prior: Name, checkpoint folder or object; see `genprior.load_prior`.
        noise_std: Noise of the known pixels, in units of [0, 1]; with 0 they are kept.
        channel_axis: Axis of the colours; None for a grey image.
        options: Further arguments of `genprior.restore`, such as `solver`, `steps` or `fill`.

    Returns:
        The filled image, floats in [0, 1], in the shape of `image`.

    Raises:
        ValueError: An argument is out of its range; the message says which and why.
    """
    operator = make_operator("inpaint", mask=mask)
    return _restored(image, operator, prior, noise_std, channel_axis, options)


def denoise(
    image: np.ndarray, sigma: float | Literal["auto"] = "auto", *, prior: Prior = "ddpm",
    channel_axis: int | None = None, **options: Any,
) -> np.ndarray:
    """Removes white Gaussian noise, as `skimage.restoration.denoise_nl_means` does.

    Arguments:
        image: The noisy image, (rows, columns) or with a channel axis.
        sigma: Standard deviation of the noise in units of [0, 1]; "auto" estimates it.
        prior, channel_axis, options: See `inpaint`.

    Returns:
        The denoised image, floats, in the shape of `image`.

    Raises:
        ValueError: An argument is out of its range; the message says which and why.
    """
    return _restored(image, make_operator("denoise"), prior, sigma, channel_axis, options)


def deblur(
    image: np.ndarray, psf: np.ndarray, *, prior: Prior = "ddpm", noise_std: float = 0.01,
    boundary: str = "valid", channel_axis: int | None = None, **options: Any,
) -> np.ndarray:
    """Removes a known blur, as `skimage.restoration.unsupervised_wiener` does.

    Arguments:
        image: The blurred image, (rows, columns) or with a channel axis.
        psf: Point spread function, (h, w), centred; scaled to sum to 1.
        prior, channel_axis, options: See `inpaint`.
        noise_std: Noise level in units of [0, 1].
        boundary: "valid" assumes nothing beyond the border, which is right for photographs;
            "reflect", "replicate" and "circular" extend the image by that rule.

    Returns:
        The sharp image, floats, in the shape of `image`.

    Raises:
        ValueError: An argument is out of its range; the message says which and why.
    """
    operator = make_operator("deblur", kernel=psf, boundary=boundary)
    return _restored(image, operator, prior, noise_std, channel_axis, options)


def superres(
    image: np.ndarray, factor: int, *, prior: Prior = "ddpm", noise_std: float = 0.01,
    channel_axis: int | None = None, **options: Any,
) -> np.ndarray:
    """Enlarges an image, in place of `skimage.transform.rescale`.

    Arguments:
        image: The small image, (rows, columns) or with a channel axis.
        factor: 2, 3, 4, 8 ...
        prior, channel_axis, options: See `inpaint`.
        noise_std: Noise level in units of [0, 1].

    Returns:
        The large image, floats, sides `factor` times as long.

    Raises:
        ValueError: An argument is out of its range; the message says which and why.
    """
    operator = make_operator("superres", factor=factor)
    return _restored(image, operator, prior, noise_std, channel_axis, options)


def _restored(
    image: np.ndarray, operator: Operator, prior: Prior, noise_std: float | Literal["auto"],
    channel_axis: int | None, options: dict[str, Any],
) -> np.ndarray:
    array = np.asarray(image)
    if array.ndim != (2 if channel_axis is None else 3):
        hint = "colours need channel_axis=-1" if channel_axis is None else "grey needs None"
        raise SettingError(
            f"image must be (rows, columns), or 3 axes with channel_axis; got shape "
            f"{array.shape} and channel_axis={channel_axis}: {hint}"
        )
    if channel_axis is not None:
        try:
            array = np.moveaxis(array, channel_axis, -1)
        except np.exceptions.AxisError:
            raise SettingError(f"channel_axis must be from -3 to 2, got {channel_axis}") from None
    numbers, _ = to_tensor(array)
    floats = numbers[0].movedim(0, -1).float().numpy()
    result = restore(floats if channel_axis is not None else floats[..., 0], operator, prior,
                     noise_std=noise_std, **options).image
    return result if channel_axis is None else np.moveaxis(result, -1, channel_axis)
