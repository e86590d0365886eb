"""Super-resolution with any kernel, against scipy, the separable operator and dense matrices."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from contracts import check_operator
from posteriors import EXACT, exact
from torch import Tensor

from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.operators.downsampling import BOUNDARIES
from genprior.operators.kernel_superres import KernelSuperResolution
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.superres import SuperResolution
from genprior.priors.texture import Texture

KERNEL = torch.tensor([[1.0, 2, 0], [0, 3, 1], [1, 0, 0.5]])
MODES = {"symmetric": "reflect", "reflect": "mirror", "circular": "wrap"}  # of scipy


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("factor", "size"), [(2, (6, 4)), (3, (5, 7))])
def test_laws(boundary: str, factor: int, size: tuple[int, int]) -> None:
    op = KernelSuperResolution(factor, KERNEL, boundary, image_size=size, tolerance=1e-14)
    exact_solves = boundary == "circular" and size[0] % factor == size[1] % factor == 0
    check_operator(op, rand(2, 1, *size), 1e-9 if exact_solves else 1e-7)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("kernel", [KERNEL, KERNEL[:2], KERNEL[:, :2]])
def test_convolves_then_decimates(boundary: str, kernel: Tensor) -> None:
    x = rand(1, 2, 9, 10)
    y = KernelSuperResolution(2, kernel, boundary, image_size=(9, 10)).A(x)
    weights = (kernel / kernel.sum()).double().numpy()
    for channel in range(2):
        blurred = scipy.ndimage.convolve(x[0, channel].numpy(), weights, mode=MODES[boundary])
        np.testing.assert_allclose(y[0, channel], blurred[::2, ::2], atol=1e-12)


def test_a_gaussian_kernel_is_that_of_the_separable_operator() -> None:
    x, kernel = rand(2, 3, 16, 18), gaussian_kernel(1.1)
    ours = KernelSuperResolution(2, kernel).A(x)
    theirs = SuperResolution(2, "gaussian", std=1.1).A(x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_the_posterior_of_a_gaussian_prior_is_exact(sigma: float) -> None:
    prior = Texture.from_exemplar(rand(1, 1, 6, 6, seed=3), margin=0)
    op, shape = KernelSuperResolution(2, KERNEL, "circular"), torch.Size((1, 1, 6, 6))
    y = op.A(rand(*shape, seed=5))
    K, offset, _, _ = exact(prior, op, sigma, shape)
    mean = GaussianPosterior("mean", **EXACT)(y, op, prior, sigma, None)
    torch.testing.assert_close(mean.flatten(), offset + K @ y.flatten(), rtol=0, atol=1e-6)


def test_single_precision_and_other_sizes() -> None:
    op = KernelSuperResolution(3, KERNEL, output_size=(20, 24))
    y = rand(2, 3, 6, 7).float()
    x = op.prox(torch.zeros(2, 3, 18, 21), y, 1e-3)
    assert x.dtype == torch.float32 and (op.A(x) - y).abs().max() < 0.05
    assert op.crop_margin(x).shape == (2, 3, 20, 24)


def test_errors() -> None:
    for factor in (1, 2.5, True):
        with pytest.raises(ValueError, match="must be an integer of at least 2"):
            KernelSuperResolution(factor, KERNEL)
    with pytest.raises(ValueError, match="unknown boundary 'valid'"):
        KernelSuperResolution(2, KERNEL, "valid")
    with pytest.raises(ValueError, match="takes one kernel"):
        KernelSuperResolution(2, torch.ones(2, 1, 3, 3))
    with pytest.raises(ValueError, match="must not be larger than the image: .* 3x3 .* 2x2"):
        KernelSuperResolution(2, KERNEL).A(rand(1, 1, 2, 2))
    sized = KernelSuperResolution(2, KERNEL, image_size=(8, 8))
    with pytest.raises(ValueError, match="have measurements of 4x4, got 3x4"):
        sized.image_shape(torch.Size((1, 1, 3, 4)))
    with pytest.raises(ValueError, match="image_size is \\(8, 8\\), got an image of"):
        sized.A(rand(1, 1, 6, 6))
