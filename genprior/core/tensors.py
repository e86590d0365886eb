"""Conversion of arrays, lists and Pillow images to tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def numbers(values: Any, what: str) -> Tensor:
    """Returns a mask or a kernel as a tensor, from a tensor, array, list or Pillow image.

    Raises:
        ValueError: It is none of these; `what` names it in the message.
    """
    if isinstance(values, Tensor):
        return values
    try:  # torch accepts neither negative strides nor a foreign byte order
        array = np.asarray(values)
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a tensor or an array, got {values!r}") from None
