"""Random coefficients of the scrambled Hartley transform, against scipy and dense matrices."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
from contracts import check_operator
from posteriors import EXACT, exact
from torch import Tensor

from genprior import degrade, make_operator, restore
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.operators.compressed_sensing import CompressedSensing
from genprior.priors.texture import Texture


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("ratio", "shape"), [
    (0.3, (2, 3, 4, 5)), (1.0, (2, 1, 6, 4)), (0.01, (1, 1, 7, 1)),
])
def test_laws(ratio: float, shape: tuple[int, ...]) -> None:
    op = CompressedSensing(ratio)
    check_operator(op, rand(*shape))
    count = max(1, round(ratio * shape[-1] * shape[-2])) * shape[1]
    assert op.num_measurements(rand(*shape)).tolist() == [count] * shape[0]


def test_coefficients_are_those_of_scipy() -> None:
    x = rand(1, 1, 6, 9)
    everything = CompressedSensing(1.0, seed=3)
    y = everything.A(x)
    _, signs = everything._at(x)
    f = scipy.fft.fft2((signs * x)[0, 0].numpy()) / math.sqrt(54)
    np.testing.assert_allclose(y[0, 0], f.real - f.imag, atol=1e-12)
    some = CompressedSensing(0.4, seed=3).A(x)
    assert torch.equal(some[some != 0], y[some != 0]) and 0 < (some == 0).sum() < 54


def test_the_choice_depends_on_seed_and_size_only() -> None:
    x = rand(1, 1, 8, 8)
    state = torch.get_rng_state()
    one, two = CompressedSensing(0.5).A(x), CompressedSensing(0.5).A(x)
    assert torch.equal(one, two) and torch.equal(state, torch.get_rng_state())
    assert not torch.equal(one, CompressedSensing(0.5, seed=1).A(x))


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_the_posterior_of_a_gaussian_prior_is_exact(sigma: float) -> None:
    prior, op = Texture.from_exemplar(rand(1, 1, 6, 6, seed=3), margin=0), CompressedSensing(0.4)
    shape = torch.Size((1, 1, 6, 6))
    y = op.A(rand(*shape, seed=5))
    K, offset, _, _ = exact(prior, op, sigma, shape)
    mean = GaussianPosterior("mean", **EXACT)(y, op, prior, sigma, None)
    torch.testing.assert_close(mean.flatten(), offset + K @ y.flatten(), rtol=0, atol=1e-6)


def test_singular_values_and_vectors() -> None:
    x, op = rand(1, 3, 4, 6), CompressedSensing(0.5)
    svd = op.singular(x.shape, x)
    torch.testing.assert_close(svd.values * svd.image(x), svd.values * svd.data(op.A(x)))
    torch.testing.assert_close(svd.back(svd.image(x)), x)


def test_restored_images_fit_the_coefficients(weights: object) -> None:
    op = make_operator("compressed-sensing", ratio=0.5, seed=2)
    x = rand(2, 3, 12, 16).float()
    y = degrade(x, op, 0.01)
    result = restore(y, op, str(weights), "hqs", 0.01, steps=2)
    assert result.image.shape == x.shape and result.image.isfinite().all()
    exact_fit = restore(op.A(x), op, str(weights), "diffpir", 0.0, steps=2)
    assert exact_fit.misfit.max() < 0.5


def test_errors() -> None:
    for ratio in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="ratio must be > 0 and at most 1"):
            CompressedSensing(ratio)
    with pytest.raises(ValueError, match="seed must be 0 or a positive integer"):
        CompressedSensing(0.5, seed=-1)
    with pytest.raises(ValueError, match="must have the shape of the images"):
        CompressedSensing(0.5).image_shape(torch.Size((1, 30)))
