import deepinv
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import torch
from contracts import check_operator

from genprior.operators.blur import BOUNDARIES, Blur
from genprior.operators.kernels import gaussian_kernel, motion_kernel

NDIMAGE = {"reflect": "mirror", "replicate": "nearest", "circular": "wrap"}


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def randn(like: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def kernel(*shape: int) -> torch.Tensor:
    """A well-conditioned kernel that float32 holds exactly, also after scaling to sum 1."""
    generator = torch.Generator().manual_seed(3)
    k = torch.randint(0, 8, shape, generator=generator).double()
    k[..., shape[-2] // 2, shape[-1] // 2] += 1
    total = k.sum(dim=(-2, -1), keepdim=True)
    k[..., shape[-2] // 2, shape[-1] // 2] += (64 - total)[..., 0, 0]
    return k / 64


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [(3, 3), (2, 4), (3, 1)])
def test_laws(boundary: str, size: tuple[int, int]) -> None:
    op = Blur(kernel(*size), boundary, iterations=400, tolerance=1e-13)
    check_operator(op, rand(2, 1, 8, 9), rtol=1e-7)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_laws_with_a_kernel_per_image_and_colour(boundary: str) -> None:
    op = Blur(kernel(2, 1, 3, 2), boundary, iterations=400, tolerance=1e-13)
    check_operator(op, rand(2, 3, 4, 5), rtol=1e-7)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_laws_of_a_separable_kernel(boundary: str) -> None:
    k = torch.outer(torch.tensor([1.0, 6, 2]), torch.tensor([1.0, 1, 5, 1]))
    check_operator(Blur(k, boundary), rand(2, 1, 8, 9))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_laws_of_a_single_row(boundary: str) -> None:
    check_operator(Blur(kernel(1, 3), boundary), rand(2, 1, 1, 9))


def test_laws_of_a_singular_circular_blur() -> None:
    # the mean of two neighbours is blind to a checkerboard: singular values 0
    check_operator(Blur(torch.ones(1, 2), "circular"), rand(2, 1, 3, 8))


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [(3, 3), (4, 2), (8, 9), (5, 1), (1, 1)])
def test_agrees_with_scipy_and_deepinv(boundary: str, size: tuple[int, int]) -> None:
    x, k = rand(2, 3, 8, 9), kernel(*size)
    op = Blur(k, boundary)
    y = op.A(x)
    if size != (1, 1):  # deepinv warns about it
        deepinv_blur = deepinv.physics.Blur(filter=k[None, None], padding=boundary)
        torch.testing.assert_close(y, deepinv_blur.A(x), rtol=0, atol=1e-12)
    if min(size) > 2:  # below, deepinv's adjoint is wrong or fails
        torch.testing.assert_close(op.A_adjoint(y), deepinv_blur.A_adjoint(y), rtol=0, atol=1e-12)
    if boundary == "valid":
        expected = scipy.signal.convolve2d(x[1, 2], k, mode="valid")
    else:
        expected = scipy.ndimage.convolve(x[1, 2].numpy(), k.numpy(), mode=NDIMAGE[boundary])
    np.testing.assert_allclose(y[1, 2], expected, atol=1e-12)


def test_valid_blur_is_smaller_and_aligned_with_crop_margin() -> None:
    delta = torch.zeros(4, 3)
    delta[2, 1] = 1
    op = Blur(delta)
    x = rand(2, 3, 10, 11)
    assert op.A(x).shape == (2, 3, 7, 9)
    assert op.image_shape(torch.Size((2, 3, 7, 9))) == x.shape
    torch.testing.assert_close(op.A(x), op.crop_margin(x))
    assert torch.equal(Blur(delta, "reflect").crop_margin(x), x)


@pytest.mark.parametrize("boundary", ["valid", "reflect"])
@pytest.mark.parametrize(("rho", "accuracy"), [(1e-4, 1e-4), (1e-2, 1e-6)])
def test_accuracy_of_the_default_number_of_iterations(
    boundary: str, rho: float, accuracy: float
) -> None:
    k = gaussian_kernel(3)
    k[12, 12] *= 1 + 1e-4  # not separable any more
    x = scipy.ndimage.gaussian_filter(rand(1, 1, 64, 70), (0, 0, 1, 1))
    x = torch.from_numpy(x)
    ours, exact = Blur(k, boundary), Blur(k, boundary, iterations=2000, tolerance=1e-14)
    assert ours._column_and_row() is None
    y = ours.A(x) + 0.01 * randn(ours.A(x))
    start = x + 0.05 * randn(x)
    expected = exact.prox(start, y, rho)
    error = (ours.prox(start, y, rho) - expected).norm() / expected.norm()
    assert error < accuracy


def test_float32_solves_at_zero_noise_stay_finite() -> None:
    x = rand(1, 1, 40, 44).float()
    for boundary in BOUNDARIES:
        for k in (gaussian_kernel(2), motion_kernel(9, 30)):
            op = Blur(k, boundary)
            y = op.A(x) + 0.01 * randn(op.A(x))
            u = op.prox(x, y, 0.0)
            assert u.dtype == torch.float32
            assert u.isfinite().all()
            assert (op.A(u) - y).norm() < 0.1 * y.norm()
            assert op.solve_gram(y, 1.0, 0.0).isfinite().all()


def test_a_replaced_kernel_is_used() -> None:
    op = Blur(kernel(3, 3), "circular")
    x = rand(1, 1, 6, 7)
    op.A(x)
    op.kernel = torch.ones(1, 1, 2, 2) / 4
    torch.testing.assert_close(op.A(x), Blur(torch.ones(2, 2), "circular").A(x))


def test_select_repeats_and_reorders() -> None:
    op = Blur(kernel(3, 1, 2, 2), "reflect", iterations=7)
    assert torch.equal(op.select([2, 0, 0]).kernel, op.kernel[[2, 0, 0]])
    assert op.select([2]).iterations == 7
    single = Blur(kernel(2, 2))
    assert single.select([0, 0]) is single


def test_gradient_is_the_adjoint() -> None:
    for boundary in BOUNDARIES:
        op = Blur(kernel(3, 4), boundary)
        x = rand(1, 1, 6, 7).requires_grad_()
        y = op.A(x)
        v = randn(y)
        (gradient,) = torch.autograd.grad((y * v).sum(), x)
        torch.testing.assert_close(gradient, op.A_adjoint(v))


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown boundary 'zeros': choose one of valid, refl"):
        Blur(torch.ones(3, 3), "zeros")
    for boundary in BOUNDARIES:
        with pytest.raises(ValueError, match="kernel has 5x3 pixels, the image 4x9: crop"):
            Blur(torch.ones(5, 3), boundary).A(torch.zeros(1, 1, 4, 9))
    with pytest.raises(ValueError, match="got 2 kernels for 3 images"):
        Blur(torch.ones(2, 1, 3, 3)).A(torch.zeros(3, 1, 5, 5))
