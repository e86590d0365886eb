"""Tensors from arrays, lists and Pillow images."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def numbers(values: Any, what: str) -> Tensor:
    """A mask or a kernel, given as a tensor, an array, a list or a Pillow image, as a tensor.

    Raises:
        ValueError: It is none of these; the message names it by `what`.
    """
    if isinstance(values, Tensor):
        return values
    try:  # torch takes neither flipped arrays nor those of another byte order
        array = np.asarray(values)
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a tensor or an array, got {values!r}") from None
