import math

import numpy as np
import pytest
import torch
from gaussians import assert_close, check_gaussian, dense_cov, dense_log_prob, generator

from genprior.core.random_streams import Noise
from genprior.priors.texture import Texture
from genprior.priors.texture_periodic import periodic_component

MARGINS = [0, 2, None]


def exemplar(channels: int, height: int = 6, width: int = 5, seed: int = 0) -> torch.Tensor:
    shape = (1, channels, height, width)
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def white(prior: Texture, shape: torch.Size, seed: int = 0) -> torch.Tensor:
    like = torch.empty((shape[0], 1, *prior.torus(shape)), dtype=torch.float64)
    return Noise(seed, list(range(shape[0]))).normal(like)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("size", [(6, 5), (8, 9)])
def test_is_one_law(channels, margin, size):
    prior = Texture.from_exemplar(exemplar(channels), margin=margin)
    check_gaussian(prior, torch.Size((1, channels, *size)))


@pytest.mark.parametrize("margin", [2, None])
def test_takes_images_smaller_than_the_exemplar(margin):
    check_gaussian(Texture.from_exemplar(exemplar(3), margin=margin), torch.Size((1, 3, 1, 3)))


def test_covariance_on_the_plane_is_the_autocorrelation_of_the_texton():
    prior = Texture.from_exemplar(exemplar(2), margin=None, floor=0.0)
    S = dense_cov(prior, torch.Size((1, 2, 7, 8))).reshape(2, 7, 8, 2, 7, 8)
    t = prior.texton.numpy()
    for a, x, b, y in [(0, (1, 2), 0, (1, 2)), (0, (0, 0), 1, (3, 1)), (1, (6, 7), 0, (2, 6))]:
        shift = np.subtract(x, y)
        moved = np.zeros((40, 40))
        moved[20 : 20 + 6, 20 : 20 + 5] = t[b]
        other = np.zeros((40, 40))
        rows, columns = 20 - shift[0], 20 - shift[1]
        other[rows : rows + 6, columns : columns + 5] = t[a]
        # Cov(X_a(x), X_b(y)) = sum_z t_a(z + x - y) t_b(z)
        assert S[a, x[0], x[1], b, y[0], y[1]].item() == pytest.approx((moved * other).sum())


@pytest.mark.parametrize("channels", [1, 3])
def test_log_prob_is_dense_log_prob(channels):
    shape = torch.Size((4, channels, 6, 6))
    prior = Texture.from_exemplar(exemplar(channels), margin=0, floor=0.05)
    x = torch.rand(shape, generator=generator(1), dtype=torch.float64)
    mean = prior.mean(shape).expand(1, *shape[1:]).flatten()
    expected = dense_log_prob(x, mean, dense_cov(prior, torch.Size((1, *shape[1:]))))
    assert torch.allclose(prior.log_prob(x), expected, rtol=1e-11)


@pytest.mark.parametrize("channels", [1, 3])
def test_denoiser_is_tweedies_formula(channels):
    prior = Texture.from_exemplar(exemplar(channels), margin=0, floor=0.02)
    sigma = 0.1
    noisy = Texture(prior.texton, prior.mean_colour, 0, math.hypot(prior.floor, sigma))
    x = torch.rand((2, channels, 6, 5), generator=generator(2), dtype=torch.float64)
    x.requires_grad_()
    score = torch.autograd.grad(noisy.log_prob(x).sum(), x)[0]
    assert_close(prior.denoise(x, sigma), x + sigma**2 * score, 1e-10)


def test_variance_is_that_of_the_periodic_component():
    u = exemplar(3, 16, 16)
    prior = Texture.from_exemplar(u)
    p = periodic_component(u[0])
    expected = p.var(dim=(1, 2), correction=0)
    assert torch.allclose(prior.texton.square().sum(dim=(1, 2)), expected, rtol=1e-12)
    assert torch.allclose(prior.mean_colour, u[0].mean(dim=(1, 2)), rtol=1e-12)


def test_estimates_from_the_known_part_alone():
    u = exemplar(3, 12, 10)
    keep = torch.ones(1, 1, 12, 10)
    keep[..., 3:7, 2:9] = 0
    damaged = torch.where(keep > 0, u, torch.nan)
    prior = Texture.from_exemplar(damaged, keep)
    known = u[0][:, keep[0, 0] > 0]
    assert torch.allclose(prior.mean_colour, known.mean(dim=1))
    cross = torch.einsum("ahw,bhw->ab", prior.texton, prior.texton)
    assert torch.allclose(cross, torch.cov(known, correction=0))


def test_spectrum_is_the_eigenvalues():
    f = torch.fft.fftfreq(8, dtype=torch.float64)
    S = 1 / (0.1 + f[:, None] ** 2 + f**2)
    prior = Texture.from_spectrum(S, mean=0.3)
    eigenvalues = torch.linalg.eigvalsh(dense_cov(prior, torch.Size((1, 1, 8, 8))))
    assert torch.allclose(eigenvalues, S.flatten().sort().values, rtol=1e-10)
    assert prior.mean(torch.Size((1, 1, 8, 8))).item() == 0.3


@pytest.mark.parametrize("method", ["adsn", "rpn"])
@pytest.mark.parametrize("margin", MARGINS)
def test_synthesis_has_the_law_of_the_texture(method, margin):
    prior = Texture.from_exemplar(exemplar(3, 8, 8), margin=margin, floor=0.0)
    shape = torch.Size((4000, 3, 9, 8))
    x = prior.synthesise(white(prior, shape), shape, method)
    centred = (x - prior.mean(shape)).flatten(1)
    S = dense_cov(prior, torch.Size((1, 3, 9, 8)))
    # the error of a sample covariance: E||C - S||^2 = (||S||^2 + tr(S)^2) / n
    bound = ((S.square().sum() + S.trace() ** 2) / len(x)).sqrt()
    assert (centred.T @ centred / len(x) - S).norm() < 1.5 * bound
    assert centred.mean(dim=0).norm() < 1.5 * (S.trace() / len(x)).sqrt()


def test_random_phase_noise_keeps_the_spectrum():
    u = exemplar(3, 8, 6)
    prior = Texture.from_exemplar(u, margin=0)
    shape = torch.Size((2, 3, 8, 6))
    x = prior.synthesise(white(prior, shape), shape, "rpn")
    spectrum = torch.fft.fft2(periodic_component(u))
    assert torch.allclose(torch.fft.fft2(x).abs(), spectrum.abs().expand(shape), atol=1e-12)
    ratio = torch.fft.fft2(x - prior.mean(shape))[:, :2] / torch.fft.fft2(prior.texton)[:2]
    assert torch.allclose(ratio[:, 0, 1:], ratio[:, 1, 1:])


def test_periodic_component():
    u = exemplar(2, 9, 12)[0]
    assert torch.allclose(periodic_component(0 * u + 0.4), 0 * u + 0.4)
    wave = torch.cos(2 * math.pi * (torch.arange(12, dtype=torch.float64) + 0.5) / 12)
    assert torch.allclose(periodic_component(wave.expand(9, 12)), wave.expand(9, 12), atol=1e-12)
    p = periodic_component(u)
    assert torch.allclose(p.mean(dim=(1, 2)), u.mean(dim=(1, 2)))
    s = u - p
    inside = (slice(None), slice(1, -1), slice(1, -1))
    laplacian = 4 * s - sum(s.roll(k, dims=d) for k in (-1, 1) for d in (-2, -1))
    assert laplacian[inside].abs().max() < 1e-12


def test_single_precision_and_batches_agree():
    prior = Texture.from_exemplar(exemplar(3))
    x = torch.rand((3, 3, 7, 7), generator=generator(3), dtype=torch.float64)
    both = prior.denoise(x, 0.1)
    assert torch.allclose(prior.denoise(x.float(), 0.1).double(), both, atol=1e-5)
    assert torch.allclose(prior.denoise(x[1:2], 0.1)[0], both[1], atol=1e-11)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Texture.from_exemplar(exemplar(3).expand(2, -1, -1, -1)), "one image"),
        (lambda: Texture.from_exemplar(exemplar(1), torch.zeros(1, 1, 6, 5)), "no known pixel"),
        (lambda: Texture(exemplar(1)[0], torch.zeros(3)), r"mean \(C,\)"),
        (lambda: Texture(exemplar(1)[0], torch.zeros(1), floor=-1), "floor must be >= 0"),
        (lambda: Texture(exemplar(1)[0], torch.zeros(1), margin=-1), "margin must be >= 0"),
        (lambda: Texture.from_spectrum(-torch.ones(4, 4)), ">= 0 and even"),
        (lambda: Texture.from_spectrum(torch.arange(16.0).reshape(4, 4)), ">= 0 and even"),
        (lambda: Texture.from_exemplar(exemplar(1)).cov(exemplar(3)), "1 channel"),
        (
            lambda: Texture.from_exemplar(exemplar(1), margin=0).cov(exemplar(1, 4, 4)),
            "at least as large",
        ),
        (lambda: Texture.from_exemplar(exemplar(1)).log_prob(exemplar(1)), "margin=0"),
        (
            lambda: Texture.from_exemplar(exemplar(3), margin=0, floor=0).log_prob(exemplar(3)),
            "floor > 0",
        ),
        (
            lambda: Texture.from_exemplar(exemplar(1)).synthesise(
                torch.zeros(1, 1, 12, 10), torch.Size((1, 1, 6, 5)), "dsn"
            ),
            "'adsn' or 'rpn'",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
