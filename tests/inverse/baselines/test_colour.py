"""Demosaicing and grey images, against filters written out and images with known results."""

import numpy as np
import pytest
import torch
from shell import photo
from torch import Tensor

from genprior.api.restoration import degrade, restore
from genprior.core.metrics import psnr
from genprior.inverse.baselines.colour import Bilinear, Grey, Malvar
from genprior.operators.colour import PATTERNS, Luminance, Mosaic
from genprior.operators.denoising import Denoising


def picture(size: int = 64) -> Tensor:
    return torch.from_numpy(photo(size=(size, size)) / 255).float().permute(2, 0, 1)[None]


def test_bilinear_is_the_mean_of_the_nearest_pixels_of_a_colour():
    x, op = picture(8), Mosaic("RGGB")
    y = op.A(x)[0, 0]
    result = restore(op.A(x), op, None, Bilinear()).image[0]
    assert torch.equal(result[0, 2, 2], y[2, 2])
    torch.testing.assert_close(result[0, 2, 3], (y[2, 2] + y[2, 4]) / 2)
    torch.testing.assert_close(
        result[1, 2, 2], (y[1, 2] + y[3, 2] + y[2, 1] + y[2, 3]) / 4
    )
    torch.testing.assert_close(
        result[2, 2, 2], (y[1, 1] + y[1, 3] + y[3, 1] + y[3, 3]) / 4
    )


def test_malvar_at_one_pixel_of_each_kind():
    x, op = picture(8), Mosaic("RGGB")
    y = op.A(x)[0, 0].double().numpy()
    result = restore(op.A(x), op, None, Malvar()).image[0]

    def around(row: int, column: int, offsets: tuple[tuple[int, int], ...]) -> np.ndarray:
        return np.array([y[row + down, column + right] for down, right in offsets])

    cross, far = ((-1, 0), (1, 0), (0, -1), (0, 1)), ((-2, 0), (2, 0), (0, -2), (0, 2))
    corners = ((-1, -1), (-1, 1), (1, -1), (1, 1))
    green_at_red = (4 * y[4, 4] + 2 * around(4, 4, cross).sum() - around(4, 4, far).sum()) / 8
    assert result[1, 4, 4].item() == pytest.approx(green_at_red, abs=1e-6)
    blue_at_red = (
        6 * y[4, 4] + 2 * around(4, 4, corners).sum() - 1.5 * around(4, 4, far).sum()
    ) / 8
    assert result[2, 4, 4].item() == pytest.approx(blue_at_red, abs=1e-6)
    red_at_green = (
        5 * y[4, 3] + 4 * (y[4, 2] + y[4, 4]) - around(4, 3, corners).sum()
        - y[4, 1] - y[4, 5] + 0.5 * (y[2, 3] + y[6, 3])
    ) / 8
    assert result[0, 4, 3].item() == pytest.approx(red_at_green, abs=1e-6)
    blue_at_green = (
        5 * y[4, 3] + 4 * (y[3, 3] + y[5, 3]) - around(4, 3, corners).sum()
        - y[2, 3] - y[6, 3] + 0.5 * (y[4, 1] + y[4, 5])
    ) / 8
    assert result[2, 4, 3].item() == pytest.approx(blue_at_green, abs=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_measured_colours_stay_and_malvar_exceeds_bilinear(pattern: str):
    x, op = picture(), Mosaic(pattern)
    y = op.A(x)
    results = [restore(y, op, None, method).image for method in (Bilinear(), Malvar())]
    for image in results:
        torch.testing.assert_close(op.A(image), y)
    low, high = (psnr(image, x).item() for image in results)
    assert high > low + 1


@pytest.mark.parametrize("method", [Bilinear(), Malvar()])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (1, 6)])
def test_constant_grey_images_of_any_size_stay(method: object, size: tuple[int, int]):
    y = torch.full((2, 1, *size), 0.3)
    result = restore(y, Mosaic("GRBG"), None, method)
    torch.testing.assert_close(result.image, torch.full((2, 3, *size), 0.3))


def test_grey_has_no_colours_and_fits():
    x, op = picture(), Luminance()
    y = degrade(x, op, "poisson=20")
    result = restore(y, op, None, Grey(), "poisson=20")
    torch.testing.assert_close(result.image, y.expand(-1, 3, -1, -1))


def test_other_operators_are_refused():
    for method in (Grey(), Bilinear(), Malvar()):
        with pytest.raises(ValueError, match="is not made for a measurement by Denoising"):
            restore(picture(), Denoising(), None, method, 0.1)
    with pytest.raises(ValueError, match="Malvar is not made for a measurement by Luminance"):
        restore(picture()[:, :1], Luminance(), None, Malvar())
