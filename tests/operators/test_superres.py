import deepinv
import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from contracts import check_operator

from genprior.operators.downsampling import BOUNDARIES
from genprior.operators.filter_matrices import fold_index
from genprior.operators.superres import KERNELS, SuperResolution


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("factor", "size"), [(2, (8, 9)), (3, (7, 9)), (4, (5, 8))])
def test_laws(kernel: str, boundary: str, factor: int, size: tuple[int, int]) -> None:
    op = SuperResolution(factor, kernel, boundary=boundary, image_size=size)
    check_operator(op, rand(2, 1, *size))


def test_laws_in_colour_of_a_single_row_and_of_a_single_pixel() -> None:
    check_operator(SuperResolution(2), rand(2, 3, 4, 6))
    check_operator(SuperResolution(2, image_size=(1, 9)), rand(2, 1, 1, 9))
    check_operator(SuperResolution(2, boundary="reflect", image_size=(1, 1)), rand(1, 1, 1, 1))


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_bicubic_agrees_with_torch_inside_and_matlab_everywhere(factor: int) -> None:
    x = rand(1, 3, 8 * factor, 9 * factor)
    y = SuperResolution(factor).A(x)
    theirs = F.interpolate(x, y.shape[-2:], mode="bicubic", antialias=True)
    # torch drops what is outside the image, so compare away from the border
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(y[inside], theirs[inside], rtol=0, atol=1e-12)
    matlab = deepinv.physics.DownsamplingMatlab(factor=factor).A(x)
    torch.testing.assert_close(y, matlab, rtol=0, atol=1e-6)


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
@pytest.mark.parametrize(("factor", "size"), [(2, (16, 18)), (3, (17, 19))])
def test_gaussian_blurs_then_decimates(
    boundary: str, factor: int, size: tuple[int, int]
) -> None:
    x = rand(1, 1, *size)
    op = SuperResolution(factor, "gaussian", std=1.1, boundary=boundary)
    mode = {"circular": "wrap", "reflect": "mirror"}[boundary]
    blurred = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), 1.1, radius=5, mode=mode)
    np.testing.assert_allclose(op.A(x)[0, 0], blurred[::factor, ::factor], atol=1e-12)


def test_box_averages_blocks() -> None:
    x = rand(2, 3, 6, 9)
    op = SuperResolution(3, "box")
    torch.testing.assert_close(op.A(x), F.avg_pool2d(x, 3))
    y = op.A(x)
    torch.testing.assert_close(op.A(op.A_adjoint(y)), y / 9)
    torch.testing.assert_close(op.pinv(y), y.repeat_interleave(3, 2).repeat_interleave(3, 3))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_image_stays_constant(kernel: str) -> None:
    x = torch.full((1, 1, 7, 10), 0.3, dtype=torch.float64)
    for boundary in BOUNDARIES:
        y = SuperResolution(3, kernel, boundary=boundary).A(x)
        torch.testing.assert_close(y, torch.full_like(y, 0.3))


@pytest.mark.parametrize("boundary", ["symmetric", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_fold_index_agrees_with_numpy(boundary: str, size: int) -> None:
    mode = {"replicate": "edge", "circular": "wrap"}.get(boundary, boundary)
    expected = np.pad(np.arange(size), 13, mode=mode)
    assert fold_index(torch.arange(-13, size + 13), size, boundary).tolist() == expected.tolist()


def test_sizes_that_are_not_divisible() -> None:
    op = SuperResolution(4)
    assert op.A(torch.zeros(1, 1, 13, 16)).shape == (1, 1, 4, 4)
    assert op.image_shape(torch.Size((2, 3, 4, 4))) == (2, 3, 16, 16)
    known = SuperResolution(4, image_size=(13, 16))
    assert known.image_shape(torch.Size((2, 3, 4, 4))) == (2, 3, 13, 16)
    y = known.A(rand(1, 1, 13, 16))
    torch.testing.assert_close(known.A(known.pinv(y)), y)


def test_float32_at_zero_noise() -> None:
    x = rand(1, 1, 48, 52).float()
    for kernel in KERNELS:
        op = SuperResolution(4, kernel)
        y = op.A(x)
        u = op.prox(torch.zeros_like(x), y, 0.0)
        assert u.dtype == torch.float32
        assert (op.A(u) - y).norm() < 1e-4 * y.norm()


def test_errors() -> None:
    for factor in (1, 2.5, 0, -2, True):
        with pytest.raises(ValueError, match="must be an integer of at least 2, got"):
            SuperResolution(factor)
    with pytest.raises(ValueError, match="unknown kernel 'sinc': choose one of bicubic, box"):
        SuperResolution(2, "sinc")
    with pytest.raises(ValueError, match="unknown boundary 'valid': choose one of symmetric"):
        SuperResolution(2, boundary="valid")
    with pytest.raises(ValueError, match="std is the width of the gaussian kernel, the box"):
        SuperResolution(2, "box", std=1.0)
    with pytest.raises(ValueError, match="standard deviation of a Gaussian kernel must be pos"):
        SuperResolution(2, "gaussian", std=-1.0)
    sized = SuperResolution(4, image_size=(13, 16))
    with pytest.raises(ValueError, match="13x16 pixels have measurements of 4x4, got 5x4"):
        sized.A_adjoint(torch.zeros(1, 1, 5, 4))
    with pytest.raises(ValueError, match="image_size is \\(13, 16\\), got an image of"):
        sized.A(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="have no measurements of"):
        SuperResolution(2).prox(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 4), 0.1)
