import math
import time

import pytest
import torch
from gaussians import assert_close, check_gaussian, dense_cov, dense_log_prob, generator

from genprior.api.sampling import sample
from genprior.priors.pca import PCA

SHAPE = torch.Size((1, 3, 4, 5))


def images(count: int = 40, shape: tuple[int, ...] = (3, 4, 5)) -> torch.Tensor:
    d = math.prod(shape)
    scale = 0.2 / torch.arange(1, d + 1, dtype=torch.float64) ** 0.5
    mixing = torch.randn(d, d, generator=generator(1), dtype=torch.float64) / d**0.5
    rows = torch.randn(count, d, generator=generator(2), dtype=torch.float64) * scale
    return (0.5 + rows @ mixing).reshape(count, *shape)


@pytest.fixture
def prior():
    return PCA.from_images(images(), 7, generator(0))


def test_is_one_law(prior):
    check_gaussian(prior, SHAPE)


def test_law_without_remainder():
    prior = PCA.from_images(images(10), 7, generator(0))
    check_gaussian(
        PCA(prior.mean_image, prior.components.reshape(7, 3, 4, 5), prior.variances, 0.0), SHAPE
    )


def test_is_the_covariance_of_the_images(prior):
    rows = images().flatten(1)
    S = torch.cov(rows.T, correction=0)
    values, vectors = torch.linalg.eigh(S)
    leading, U = values[-7:], vectors[:, -7:]
    rest = (values.sum() - leading.sum()) / (60 - 7)
    expected = U @ torch.diag(leading - rest) @ U.T + rest * torch.eye(60, dtype=S.dtype)
    assert_close(dense_cov(prior, SHAPE), expected, 1e-3)
    assert prior.variances.sum() + 53 * prior.floor**2 == pytest.approx(S.trace().item())


def test_log_prob_is_dense_log_prob(prior):
    x = images(5)
    mean = prior.mean(SHAPE).flatten()
    expected = dense_log_prob(x, mean, dense_cov(prior, SHAPE))
    assert torch.allclose(prior.log_prob(x), expected, rtol=1e-10)


def test_log_prob_and_its_gradient_in_single_precision():
    U = torch.linalg.qr(torch.randn(300, 4, generator=generator(1), dtype=torch.float64)).Q.T
    variances = torch.tensor([40, 10, 2, 1], dtype=torch.float64)
    mean, U = torch.full((3, 10, 10), 0.5, dtype=torch.float64), U.reshape(4, 3, 10, 10)
    exact = PCA(mean, U, variances, 1e-3)
    z = torch.randn(exact.latent_shape((1, 3, 10, 10)), generator=generator(2)).double()
    x = exact.decode(z, torch.Size((1, 3, 10, 10)))
    found = []
    for dtype in (torch.float64, torch.float32):
        prior = PCA(mean, U, variances, 1e-3).to(dtype)
        at = x.to(torch.float32).to(dtype).requires_grad_()
        value = prior.log_prob(at)
        slope = torch.autograd.grad(value.sum(), at)[0]
        found.append((value.double(), slope.double().flatten() @ U.flatten(1).T))
    assert torch.allclose(found[0][0], found[1][0], rtol=0, atol=0.02)
    assert torch.allclose(found[0][1], found[1][1], rtol=0, atol=2e-3)


def test_denoiser_is_tweedies_formula(prior):
    sigma, k = 0.1, len(prior.variances)
    noisy = PCA(
        prior.mean_image,
        prior.components.reshape(k, 3, 4, 5),
        prior.variances + sigma**2,
        math.hypot(prior.floor, sigma),
    )
    x = images(2).requires_grad_()
    score = torch.autograd.grad(noisy.log_prob(x).sum(), x)[0]
    assert_close(prior.denoise(x, sigma), x + sigma**2 * score, 1e-10)


def test_fits_2000_colour_images_of_64_pixels_in_seconds():
    x = torch.rand(2000, 3, 64, 64, generator=generator(3))
    start = time.process_time()
    prior = PCA.from_images(x, 64, generator(0))
    assert time.process_time() - start < 30
    assert prior.log_prob(x[:2]).isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: PCA.from_images(images(5), 5, generator(0)),
            r"components must be in 1 \.\.\. 4",
        ),
        (lambda p: p.cov(torch.zeros(1, 3, 5, 5)), "crop or resize"),
        (lambda p: PCA(p.mean_image, p.components, p.variances, 0.1), "components must be"),
        (
            lambda p: PCA(p.mean_image, p.components.reshape(7, 3, 4, 5), p.variances, 9.0),
            "at most the smallest variance",
        ),
        (
            lambda p: PCA(
                p.mean_image, p.components.reshape(7, 3, 4, 5), p.variances, 0.0
            ).log_prob(images(1)),
            "no density",
        ),
    ],
)
def test_errors(prior, call, message):
    with pytest.raises(ValueError, match=message):
        call(prior)


def test_it_is_sampled_at_its_own_size_and_channels():
    components = torch.eye(15)[:2].reshape(2, 1, 3, 5)
    prior = PCA(torch.full((1, 3, 5), 0.5), components, torch.ones(2), 0.0)
    assert torch.equal(sample(prior, 2), sample(prior, 2, (3, 5), channels=1))
