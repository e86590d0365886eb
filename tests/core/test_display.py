"""Images as 8-bit pixels, std maps and HTML, against values computed by hand."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.core.display import MOST, deviations, figures, pixels, png

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14


@pytest.mark.parametrize("image", [
    RGB, RGB / 255, RGB.astype(np.uint16) * 257, Image.fromarray(RGB),
    torch.from_numpy(RGB).permute(2, 0, 1), torch.from_numpy(RGB).permute(2, 0, 1)[None] / 255,
    torch.from_numpy(RGB / 255).permute(2, 0, 1).half(),
])
def test_every_type_shows_the_same_pixels(image: object) -> None:
    assert np.array_equal(pixels(image), RGB[None])


def test_batches_grey_images_and_values_out_of_range() -> None:
    assert pixels([Image.fromarray(RGB)] * 2).shape == (2, 2, 3, 3)
    assert pixels(np.zeros((4, 5))).shape == (1, 4, 5, 1)
    assert pixels(np.array([[-1.0, 2.0]])).ravel().tolist() == [0, 255]
    assert pixels(torch.rand(2, 5, 3, 4)).shape == (2, 3, 4, 1)


def test_complex_images_show_their_magnitude() -> None:
    parts = torch.tensor([[[0.3, 0.0]], [[0.4, -0.2]]])
    assert pixels(parts).ravel().tolist() == [255, 102]
    assert pixels(torch.complex(parts[:1], parts[1:])).ravel().tolist() == [255, 102]


def test_deviations_are_rms_over_channels_and_white_is_the_largest() -> None:
    std = torch.tensor([[[0.3, 0.0]], [[0.4, 0.0]]])
    maps, white = deviations(std)
    assert maps.ravel().tolist() == [255, 0] and white == pytest.approx([0.125**0.5])
    same, _ = deviations(std.permute(1, 2, 0).numpy())
    assert np.array_equal(maps, same)
    assert deviations(torch.zeros(2, 1, 3, 3))[0].max() == 0


def test_html_holds_the_pixels_and_escapes_captions() -> None:
    text = figures([("<b>", RGB)])
    assert "&lt;b&gt;" in text and "<b>" not in text
    data = re.search(r"base64,([^\"]+)", text)[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.array_equal(shown, RGB)
    large = Image.open(io.BytesIO(png(np.zeros((3 * MOST, MOST, 1), np.uint8))))
    assert large.size == (round(MOST / 3), MOST)
    assert f"width:{MOST}px" in figures([("wide", np.zeros((1, 3 * MOST, 1), np.uint8))])
