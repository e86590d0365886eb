"""Conversion of images in memory to tensors and back."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.io.arrays import to_tensor

rng = np.random.default_rng(0)


def integers(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


ARRAYS = [
    integers((5, 4), np.uint8),
    integers((5, 4, 1), np.uint8),
    integers((5, 4, 3), np.uint16),
    integers((2, 5, 4, 3), np.uint8),
    integers((5, 4, 3), np.uint16).astype(">u2"),
    np.arange(65536, dtype=np.uint16).reshape(256, 256),
    rng.random((5, 4, 3), dtype=np.float32),
    rng.random((5, 4), dtype=np.float32).astype(np.float64),
    rng.random((1, 5, 4, 3)).astype(np.float16),
    integers((8, 9, 3), np.uint8)[::-1, ::2],
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}-{a.shape}")
def test_numpy_round_trip(array: np.ndarray) -> None:
    before = array.copy()
    tensor, restore = to_tensor(array)
    top = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    assert tensor.dtype == torch.float32
    channels_last = tensor.permute(0, 2, 3, 1).double().numpy().reshape(array.shape)
    np.testing.assert_allclose(channels_last, array / top, atol=1e-7)
    back = restore(tensor)
    assert back.dtype == array.dtype and back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    tensor.zero_()
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 5, 4), (3, 5, 4)])
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32, torch.float64]
)
def test_torch_round_trip(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    top = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    image = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * top).to(dtype)
    tensor, restore = to_tensor(image)
    assert tensor.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert tensor.shape == (shape if len(shape) == 4 else (1, *shape))
    back = restore(tensor)
    assert back.dtype == dtype
    assert torch.equal(back, image)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "F"])
def test_pillow_round_trip(mode: str) -> None:
    shape = {"LA": (5, 4, 2), "RGB": (5, 4, 3), "RGBA": (5, 4, 4)}.get(mode, (5, 4))
    dtype = {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)
    pixels = rng.random(shape, np.float32) if mode == "F" else integers(shape, dtype)
    image = Image.fromarray(pixels)
    assert image.mode == mode
    tensor, restore = to_tensor(image)
    assert tensor.shape == (1, 3 if "RGB" in mode else 1, 5, 4)
    back = restore(tensor)
    assert back.mode == mode
    np.testing.assert_array_equal(np.asarray(back), pixels)


def test_pillow_images_are_put_upright() -> None:
    image = Image.fromarray(integers((2, 3, 3), np.uint8))
    image.getexif()[0x0112] = 6
    tensor, _ = to_tensor(image)
    expected = np.rot90(np.asarray(image), -1) / 255
    np.testing.assert_allclose(tensor[0].permute(1, 2, 0).numpy(), expected, atol=1e-7)


def test_alpha_follows_the_size() -> None:
    pixels = integers((4, 6, 4), np.uint8)
    pixels[..., 3] = 77
    tensor, restore = to_tensor(Image.fromarray(pixels))
    larger = restore(torch.nn.functional.interpolate(tensor, scale_factor=2))
    assert larger.size == (12, 8)
    assert set(np.unique(np.asarray(larger)[..., 3])) == {77}


def test_several_results_for_one_image() -> None:
    samples = torch.rand(4, 3, 5, 4)
    _, restore = to_tensor(np.zeros((5, 4, 3), np.uint8))
    assert restore(samples).shape == (4, 5, 4, 3)
    _, restore = to_tensor(torch.zeros(3, 5, 4))
    assert restore(samples).shape == (4, 3, 5, 4)
    _, restore = to_tensor(Image.new("RGB", (4, 5)))
    assert [image.size for image in restore(samples)] == [(4, 5)] * 4


def test_results_are_clipped_and_rounded_to_nearest() -> None:
    _, restore = to_tensor(np.zeros((1, 4), np.uint8))
    values = torch.tensor([-0.5, 0.49 / 255, 0.51 / 255, 1.5]).reshape(1, 1, 1, 4)
    assert restore(values).tolist() == [[0, 0, 1, 255]]


def test_noise_outside_the_range_is_kept() -> None:
    noisy = torch.tensor([-0.8, 1.9]).reshape(1, 1, 1, 2)
    tensor, restore = to_tensor(noisy)
    assert torch.equal(restore(tensor), noisy)


def test_read_only_arrays_are_read_without_a_warning() -> None:
    array = np.zeros((4, 4, 3), np.float32)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_tensor(array)[0].add_(1)
    assert array.max() == 0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.full((4, 4, 3), 255.0),
            r"values from 255 to 255: rescale them \(divide 8-bit values by 255\)",
        ),
        (torch.full((3, 4, 4), -7.0), "values from -7 to -7"),
        (np.full((4, 4), np.nan), "NaN or infinite"),
        (np.zeros((4, 4, 3), np.int32), "uint8, uint16 or float, got int32"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "float in .*, got int64"),
        (np.zeros((3, 4, 5)), r"move its channels last.*|got \[3, 4, 5\]"),
        (torch.zeros(4, 4, 3), r"1 or 3 channels, got \[4, 4, 3\]"),
        (torch.zeros(4, 4), r"got \[4, 4\]"),
        (np.zeros((4, 4, 4)), "split alpha off"),
        (np.zeros((0, 4, 3)), "no pixels"),
        ([[1.0]], "got list"),
        (Image.new("HSV", (2, 2)), "mode HSV"),
    ],
)
def test_invalid_images_raise(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_tensor(image)


def test_a_result_with_nan_is_refused() -> None:
    _, restore = to_tensor(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="result holds NaN"):
        restore(torch.tensor([[[[0.0, torch.nan]]]]))
