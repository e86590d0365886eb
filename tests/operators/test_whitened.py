import pytest
import torch
from contracts import check_operator, dense
from nonlinear import Affine, check_jacobian
from posteriors import EXACT, priors, rand

from genprior.core.errors import SettingError
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.operators.blur import Blur
from genprior.operators.clipping import Clipping
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.jpeg import JPEG
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.noise_models import CorrelatedNoise, IndependentNoise, WhiteNoise
from genprior.operators.superres import SuperResolution
from genprior.operators.whitened import Whitened, WhitenedNonlinear, whitened

BOX = torch.ones(3, 3)


def noises(size):
    return {
        "white": WhiteNoise(0.1),
        "map": IndependentNoise(0.05 + 0.2 * rand(1, 1, size, size, seed=9)),
        "correlated": CorrelatedNoise.from_kernel(BOX, 0.1, floor=0.03),
    }


@pytest.mark.parametrize("noise", list(noises(4)))
def test_laws_for_denoising(noise):
    check_operator(Whitened(Denoising(), noises(4)[noise]), rand(2, 3, 4, 4), rtol=1e-7)


@pytest.mark.parametrize("noise", ["map", "correlated"])
def test_laws_for_a_blur(noise):
    blur = Blur(gaussian_kernel(0.5), boundary="circular")
    op = Whitened(blur, noises(6)[noise], iterations=2000, tolerance=1e-13)
    check_operator(op, rand(2, 1, 6, 6), rtol=1e-6)


def test_white_noise_changes_nothing():
    op, y = Whitened(Denoising(), WhiteNoise([0.1, 0.2])), rand(2, 3, 5, 4)
    assert torch.allclose(op.A(y), y)
    assert torch.allclose(op.whiten(y), y)
    assert torch.allclose(op.noisy_image(y), y)


@pytest.mark.parametrize("prior", ["torus", "margin", "pca"])
@pytest.mark.parametrize("noise", ["map", "correlated"])
@pytest.mark.parametrize("operator", ["denoise", "blur", "superres"])
def test_the_posterior_mean_of_a_gaussian_prior_is_exact(prior, noise, operator):
    op = {
        "denoise": Denoising(),
        "blur": Blur(gaussian_kernel(0.5), boundary="circular"),
        "superres": SuperResolution(2, "box"),
    }[operator]
    shape = torch.Size((1, 2, 6, 6))
    law, noise = priors(6, 2)[prior], noises(3 if operator == "superres" else 6)[noise]
    y = op.A(rand(*shape, seed=5))
    S = law.cov(torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape[1:])).flatten(1)
    A, mean = dense(op, torch.zeros(shape, dtype=torch.float64)), law.mean(shape).expand(shape)
    unit = torch.eye(y.numel(), dtype=torch.float64).reshape(-1, *y.shape[1:])
    Sigma = noise.covariance(unit).flatten(1)
    gain = S @ A.T @ torch.linalg.inv(A @ S @ A.T + Sigma)
    expected = mean.flatten() + gain @ (y.flatten() - A @ mean.flatten())

    white = Whitened(op, noise)
    level = noise.level(y)
    x = GaussianPosterior("mean", **EXACT)(white.whiten(y), white, law, level, None)
    assert (x.flatten() - expected).norm() <= 1e-6 * expected.norm()


def test_a_plain_operator_leaves_the_image_and_knows_its_noise():
    noise, y = noises(5)["correlated"], rand(2, 3, 5, 5)
    op = Whitened(Denoising(), noise, plain=True)
    assert torch.equal(op.whiten(y), y) and torch.equal(op.A(y), y)
    assert torch.equal(op.noisy_image(y), y) and op.select([0]).plain
    assert torch.allclose(op.colour_noise(y), noise.colour(y))
    check_operator(op, rand(2, 1, 3, 3))


def test_holes_with_correlated_noise_are_refused():
    op = Whitened(Inpainting(rand(1, 1, 6, 6) > 0.5), noises(6)["correlated"])
    with pytest.raises(SettingError, match="with holes"):
        op.check(torch.zeros(1, 3, 6, 6))
    Whitened(op.operator, noises(6)["map"]).check(torch.zeros(1, 3, 6, 6))


def test_an_operator_that_is_not_linear_is_whitened_too():
    noise, x = noises(6)["correlated"], rand(2, 1, 6, 6)
    op = whitened(Clipping(2.0, 0.5), noise)
    assert isinstance(op, WhitenedNonlinear)
    check_jacobian(op, 0.3 + 0.4 * x, rtol=1e-6)
    y = Clipping(2.0, 0.5).A(0.3 + 0.4 * x)  # rounding would move a value off the limits
    torch.testing.assert_close(op.A(0.3 + 0.4 * x), op.whiten(y))
    torch.testing.assert_close(
        op.expansion_point(op.whiten(y)), Clipping(2.0, 0.5).expansion_point(y)
    )
    blur, shift = Blur(gaussian_kernel(0.5), boundary="circular"), 0.25
    affine = whitened(Affine(blur, shift), noise)
    affine.cg_steps, affine.tolerance = 2000, 1e-13
    linear = Whitened(blur, noise, iterations=2000, tolerance=1e-13)
    y = blur.A(x) + 0.1 * rand(2, 1, 6, 6, seed=3)
    found = affine.prox(x, affine.whiten(y + shift), 0.2)
    torch.testing.assert_close(found, linear.prox(x, linear.whiten(y), 0.2), rtol=0, atol=1e-6)
    alone = affine.select([1]).prox(x[1:], affine.select([1]).whiten(y[1:] + shift), 0.2)
    torch.testing.assert_close(alone[0], found[1], rtol=0, atol=1e-6)
    with pytest.raises(SettingError, match="JPEG takes no law of the noise"):
        whitened(JPEG(30), noise)
