import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from genprior.operators.kernels import (
    check_kernel,
    disc_kernel,
    gaussian_kernel,
    motion_kernel,
    resampling_weights,
    separate,
)


@pytest.mark.parametrize("std", [0.3, 1.6, 3.0])
def test_gaussian_agrees_with_scipy(std: float) -> None:
    k = gaussian_kernel(std)
    size = k.shape[0]
    assert size % 2 == 1
    assert size // 2 >= 4 * std
    impulse = np.zeros((size, size))
    impulse[size // 2, size // 2] = 1
    theirs = scipy.ndimage.gaussian_filter(impulse, std, radius=size // 2, mode="constant")
    np.testing.assert_allclose(k, theirs, atol=1e-14)
    assert abs(k.sum() - 1) < 1e-14


def test_motion_of_odd_length_along_an_axis_is_a_box() -> None:
    expected = torch.full((1, 7), 1 / 7, dtype=torch.float64)
    torch.testing.assert_close(motion_kernel(7), expected)
    torch.testing.assert_close(motion_kernel(7, 90), expected.mT)
    torch.testing.assert_close(motion_kernel(1, 30.0).sum(), expected.sum())


@pytest.mark.parametrize("angle", [0, 20, 45, 110, -60])
def test_motion_has_the_given_direction_length_and_thickness(angle: float) -> None:
    length = 12.5
    k = motion_kernel(length, angle)
    assert all(n % 2 == 1 for n in k.shape)
    assert abs(k.sum() - 1) < 1e-14
    torch.testing.assert_close(k, k.flip(0, 1))
    y, x = np.indices(k.shape, dtype=float)
    x, y = x - k.shape[1] // 2, k.shape[0] // 2 - y
    radians = np.deg2rad(angle)
    along = x * np.cos(radians) + y * np.sin(radians)
    across = -x * np.sin(radians) + y * np.cos(radians)
    # variances of the sides of a rectangle, and up to 1/12 from gathering it in pixels
    assert (k.numpy() * along**2).sum() == pytest.approx((length**2 + 0.6) / 12, abs=0.6 / 12)
    assert -1e-12 <= (k.numpy() * across**2).sum() <= 2.1 / 12


@pytest.mark.parametrize("radius", [3.5, 7.2])
def test_disc_has_the_moments_of_a_disc(radius: float) -> None:
    k = disc_kernel(radius)
    assert k.shape[0] % 2 == 1
    assert abs(k.sum() - 1) < 1e-14
    torch.testing.assert_close(k, k.rot90())
    t = torch.arange(len(k)).double() - len(k) // 2
    # variance of a disc, and 1/12 from gathering it in pixels
    variance = (k.sum(dim=0) * t**2).sum().item()
    assert variance == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.02)
    inside = torch.hypot(t[:, None], t[None, :]) < radius - 1
    torch.testing.assert_close(k[inside] * math.pi * radius**2,
                               torch.ones_like(k[inside]), rtol=0.02, atol=0)


def test_disc_of_half_a_pixel_does_not_blur() -> None:
    assert torch.equal(disc_kernel(0.5), torch.ones(1, 1, dtype=torch.float64))


def test_check_kernel_normalises() -> None:
    k = check_kernel(torch.tensor([[1, 2], [3, 2]]))
    assert k.shape == (1, 1, 2, 2)
    assert k.dtype == torch.float64
    assert k.flatten().tolist() == [0.125, 0.25, 0.375, 0.25]
    several = check_kernel(torch.rand(3, 1, 2, 5, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(several.sum(dim=(1, 2, 3)), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (torch.ones(3), "must have shape \\(height, width\\).*got \\(3,\\)"),
        (torch.ones(1, 2, 3, 3), "one per image, got \\(1, 2, 3, 3\\)"),
        (torch.ones(0, 3), "got \\(0, 3\\)"),
        (torch.tensor([[1.0, float("nan")]]), "finite numbers only"),
        (torch.tensor([[1.0, -1.0]]), "must not sum to 0"),
        (torch.zeros(2, 2), "must not sum to 0"),
    ],
)
def test_bad_kernels(kernel: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_kernel(kernel)


def test_bad_parameters() -> None:
    with pytest.raises(ValueError, match="standard deviation of a Gaussian kernel must be pos"):
        gaussian_kernel(0)
    with pytest.raises(ValueError, match="at least 1 pixel long.*got length 0.5"):
        motion_kernel(0.5)
    with pytest.raises(ValueError, match="finite angle in degrees"):
        motion_kernel(3, float("inf"))


def test_separate() -> None:
    k = check_kernel(torch.outer(torch.tensor([1.0, 3, 2]), torch.tensor([-1.0, 4])))
    column, row = separate(k)
    torch.testing.assert_close(column[..., :, None] * row[..., None, :], k)
    assert separate(check_kernel(torch.eye(3))) is None
    assert separate(torch.cat([k, check_kernel(torch.rand(3, 2))])) is None


@pytest.mark.parametrize("kernel", ["bicubic", "box", "gaussian"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_resampling_weights_are_centred(kernel: str, factor: int) -> None:
    offsets, weights = resampling_weights(kernel, factor, std=0.45 * factor)
    centre = 0 if kernel == "gaussian" else (factor - 1) / 2
    assert (offsets * weights).sum().item() == pytest.approx(centre, abs=1e-12)
    assert weights.sum().item() == pytest.approx(1, abs=1e-14)
