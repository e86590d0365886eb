"""Checks of arguments, and conversion of images and measurements to tensors and back."""

from collections.abc import Callable, Iterable, Sequence
from operator import index as as_index
from typing import Any

import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.foreign_classes import is_instance
from genprior.io.arrays import to_tensor
from genprior.operators.base import Operator


def whole_number(name: str, value: Any, least: int | None = None) -> int:
    """Returns a whole number of any type as an int.

    Raises:
        SettingError: It is not a whole number, or below `least`; the message gives its name.
    """
    try:
        number = as_index(value)
    except (TypeError, RuntimeError):
        raise SettingError(f"{name} must be a whole number, got {value!r}") from None
    if least is not None and number < least:
        raise SettingError(f"{name} must be at least {least}, got {number}")
    return number


def random_seed(seed: Any) -> int:
    """Returns a seed as an int.

    Raises:
        SettingError: It is not a whole number, or negative.
    """
    number = whole_number("seed", seed)
    if number < 0:
        raise SettingError(f"seed must be 0 or a positive integer, got {number}")
    return number


def image_numbers(index: int | Sequence[int], count: int) -> list[int]:
    """Returns the numbers of the images of a batch, which determine their noise.

    Raises:
        SettingError: A number is negative or not whole, or there is not one for each image.
    """
    if isinstance(index, Iterable):
        numbers = [whole_number("index", number) for number in index]
    else:
        first = whole_number("index", index)
        numbers = list(range(first, first + count))
    if min(numbers, default=0) < 0:
        raise SettingError(f"index must not be negative, got {min(numbers)}")
    if len(numbers) != count:
        raise SettingError(
            f"index must hold one number for each of the {count} images, got {len(numbers)}"
        )
    return numbers


def noise_models(physics: Any) -> list[Any]:
    """Returns the noise models of a physics of deepinv, one for each of its measurements.

    An operator that was made of a physics has those of the physics; any other has none.
    """
    if isinstance(physics, Operator):
        physics = getattr(physics, "physics", None)
    if is_instance(physics, "deepinv.physics.StackedPhysics"):
        return [model for part in physics.physics_list for model in noise_models(part)]
    return [getattr(physics, "noise_model", None)]


def gaussian_level(model: Any) -> Tensor | None:
    """Returns the standard deviation of a noise model, shape (1,) or (B,); None if not Gaussian.

    Without a noise model it is 0.
    """
    if model is None or is_instance(model, "deepinv.physics.ZeroNoise"):
        return torch.zeros(1)
    if not is_instance(model, "deepinv.physics.GaussianNoise"):
        return None
    return torch.as_tensor(model.sigma).detach().float().cpu().flatten()


def physics_noise(physics: object, y: Any) -> float | Tensor:
    """Returns the noise level of the measurements of a physics of deepinv.

    Arguments:
        physics: A physics, or an operator.
        y: Measurements as the physics returns them. Noise of level sigma has sigma / sqrt(2) in
            the real and in the imaginary part of a complex number.

    Returns:
        A number or a tensor (B,); 0 if there is no noise model, if one is not Gaussian, or if
        the levels of several measurements differ.
    """
    models = noise_models(physics)
    parts = list(y) if is_instance(y, "deepinv.utils.TensorList") else [y] * len(models)
    levels = []
    for model, part in zip(models, parts, strict=False):
        if (level := gaussian_level(model)) is None:
            return 0.0
        is_complex = isinstance(part, Tensor) and part.is_complex()
        levels.append(level * 0.5**0.5 if is_complex else level)
    if any(level.shape != levels[0].shape or (level != levels[0]).any() for level in levels):
        return 0.0
    return levels[0].item() if len(levels[0]) == 1 else levels[0]


def check_noise(operator: Operator, sigma: Tensor) -> None:
    """Checks that there is no noise in the measurement of an operator that rounds.

    Raises:
        SettingError: There is.
    """
    if not operator.is_differentiable and (sigma > 0).any():
        raise SettingError(
            f"{type(operator).__name__} takes no noise level, since its error is that of "
            f"rounding: leave noise_std at 0"
        )


def take_image(image: Any, operator: Operator) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Converts as `to_tensor`; for a physics, float batches may have any channels and scale."""
    floats = isinstance(image, Tensor) and image.is_floating_point() and image.ndim == 4
    if floats and not operator.measures_images:
        return _finite(image, "the image"), lambda y: y.to(image.dtype)
    return to_tensor(image)


def take_measurement(
    y: Any, operator: Operator
) -> tuple[Tensor, Callable[[Tensor], Any], bool]:
    """Converts as `to_tensor`; for a physics, floats may have any shape and scale.

    Returns:
        Measurements (B, ...), a function that converts images back to the type of y, and whether
        y is a single measurement.

    Raises:
        ValueError: See `to_tensor`; the message tells what else can be given.
    """
    numbers = isinstance(y, Tensor) and (y.is_floating_point() or y.is_complex())
    if operator.measures_images or not (numbers or is_instance(y, "deepinv.utils.TensorList")):
        try:
            batch, back = to_tensor(y)
        except ValueError as error:
            if operator.measures_images:
                raise
            raise ValueError(
                f"{error}; give a measurement that is not an image as a float tensor (B, ...)"
            ) from error
        return batch, back, getattr(y, "ndim", 0) < batch.ndim
    y = _finite(operator.pack(y), "the measurement")
    single = not operator.is_batch(y.shape) and operator.is_batch(y[None].shape)
    batch = y[None] if single else y

    def restore(x: Tensor) -> Tensor:
        x = x.to(y.dtype)
        return x[0] if single and len(x) == 1 else x

    return batch, restore, single


def _finite(values: Tensor, what: str) -> Tensor:
    if not values.isfinite().all():
        raise ValueError(f"{what} holds NaN or infinite numbers: replace them first")
    return values
