"""Masks and kernels in any form become tensors."""

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.core.tensors import numbers

VALUES = [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "values",
    [
        VALUES,
        np.array(VALUES),
        np.array(VALUES, ">i4"),
        np.array(VALUES)[::-1][::-1],
        np.array(VALUES, order="F"),
        torch.tensor(VALUES),
        Image.fromarray(np.array(VALUES, np.uint8)),
    ],
)
def test_all_forms_have_the_same_numbers(values: object) -> None:
    assert numbers(values, "the mask").tolist() == VALUES


def test_negative_strides_are_copied() -> None:
    assert numbers(np.array(VALUES)[:, ::-1], "the mask").tolist() == [[2, 1, 0], [5, 4, 3]]


@pytest.mark.parametrize("values", ["mask.png", object(), [[1], [2, 3]], None])
def test_anything_else_is_refused_by_name(values: object) -> None:
    with pytest.raises(ValueError, match="the mask must be a tensor or an array"):
        numbers(values, "the mask")
