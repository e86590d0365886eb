"""Conversion of images and measurements of any type to tensors, and back."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from genprior.core.foreign_classes import is_instance
from genprior.io.arrays import to_tensor
from genprior.operators.base import Operator


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
