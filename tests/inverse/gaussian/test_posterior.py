from dataclasses import replace

import deepinv
import pytest
import torch
from posteriors import EXACT, exact, generator, operators, priors, rand

from genprior.core.linalg import solve
from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.exact_laws import law_of
from genprior.inverse.gaussian import linear_mmse, posterior
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.external import External
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel
from genprior.priors.texture import Texture


class Given:
    """A source of noise that gives what it was given."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def normal(self, like):
        return self.draws.pop(0)


def check_against_dense(prior, op, sigma, shape, rtol=1e-8):
    K, offset, cov, S = exact(prior, op, sigma, shape)
    z = torch.randn(prior.latent_shape(shape), generator=generator(6), dtype=torch.float64)
    y = op.A(prior.decode(z, shape))
    y = y + sigma * op.mask_unmeasured(rand(*y.shape, seed=7) - 0.5)
    expected = offset + K @ y.flatten()
    mean = GaussianPosterior("mean", **EXACT)(y, op, prior, sigma, None)
    assert (mean.flatten() - expected).norm() <= rtol * expected.norm()

    class Answer(GaussianPosterior):
        # law_of takes 0 and unit vectors for y, which without noise need not be of the law
        def solve(self, other, *rest):
            return super().solve(y.expand_as(other), *rest)

    law, centre = law_of(Answer(**EXACT), op, prior, sigma, torch.zeros_like(y))
    assert (centre - expected).norm() <= rtol * expected.norm()
    assert (law.V - cov).norm() <= rtol * S.norm()


@pytest.mark.parametrize(
    ("prior", "channels"),
    [
        ("torus", 1),
        ("torus", 3),
        ("no floor", 1),
        pytest.param("no floor", 3, marks=pytest.mark.slow),
        ("margin", 2),
        ("plane", 1),
        ("pca", 2),
    ],
)
@pytest.mark.parametrize("sigma", [0.0, 0.05])
@pytest.mark.parametrize("operator", list(operators(6)))
def test_mean_and_covariance_are_exact(prior, channels, sigma, operator):
    op = operators(6, channels)[operator]
    check_against_dense(priors(6, channels)[prior], op, sigma, torch.Size((1, channels, 6, 6)))


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["torus", "margin", "pca"])
@pytest.mark.parametrize("sigma", [0.0, 0.05])
@pytest.mark.parametrize("operator", list(operators(6)))
def test_mean_and_samples_are_exact_at_24_pixels_in_colour(prior, sigma, operator, monkeypatch):
    # a sample is an affine map of white noise: where that map is right, so is its covariance
    if operator != "motion":
        monkeypatch.setattr(linear_mmse, "NUMBERS", 0)
    op, law = operators(24, 3)[operator], priors(24, 3)[prior]
    one, count = torch.Size((1, 3, 24, 24)), 8
    K, offset, _, _ = exact(law, op, sigma, one)
    z = torch.randn(law.latent_shape((count, *one[1:])), generator=generator(6)).double()
    x = law.decode(z, torch.Size((count, *one[1:])))
    y = op.A(x[:1])
    n = op.mask_unmeasured(torch.randn((count, *y.shape[1:]), generator=generator(7)).double())
    y = y + sigma * n[:1]
    expected = x.flatten(1) + (y - op.A(x) - sigma * n).flatten(1) @ K.T
    solver = GaussianPosterior(tolerance=1e-11, iterations=3000)
    samples = solver(y.expand_as(n), op, law, sigma, Given(z, n)).flatten(1)
    assert (samples - expected).norm() <= 1e-8 * expected.norm()
    mean = replace(solver, mode="mean")(y, op, law, sigma, None).flatten()
    assert (mean - offset - K @ y.flatten()).norm() <= 1e-8 * mean.norm()


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_samples_are_of_the_posterior(sigma):
    shape, count = torch.Size((1, 3, 12, 12)), 2000
    prior = Texture.from_exemplar(rand(1, 3, 12, 12), margin=0)
    op = operators(12)["box"]
    K, offset, cov, _ = exact(prior, op, sigma, shape)
    y = op.A(rand(*shape, seed=8))
    mean = offset + K @ y.flatten()
    samples = GaussianPosterior(tolerance=1e-9)(
        y.expand(count, -1, -1, -1), op, prior, sigma, Noise(0, list(range(count)))
    ).flatten(1)
    # squared errors of a sample mean and of a sample covariance: expectations
    centred = samples - mean
    expected = (cov.trace() / count).sqrt()
    assert centred.mean(dim=0).norm() == pytest.approx(expected.item(), rel=0.5)
    error = (centred.T @ centred / count - cov).norm()
    bound = ((cov.square().sum() + cov.trace() ** 2) / count).sqrt()
    assert 0.5 * bound < error < 1.5 * bound
    # z^2 of random projections has mean 1 and standard deviation sqrt(2 / count)
    v = torch.randn(50, len(mean), generator=generator(9), dtype=torch.float64)
    z2 = (centred @ v.T).square().mean(dim=0) / torch.einsum("ki,ij,kj->k", v, cov, v)
    assert (z2 - 1).abs().max() < 5 * (2 / count) ** 0.5


def test_without_noise_known_pixels_are_kept():
    op, y = operators(8)["box"], operators(8)["box"].A(rand(2, 3, 8, 8))
    prior = Texture.from_exemplar(rand(1, 3, 8, 8, seed=1))
    x = GaussianPosterior()(y, op, prior, 0.0, Noise(0, [0, 1]))
    assert torch.equal(op.A(x), y)


def test_a_sample_is_kriging_plus_innovation():
    op, prior = operators(8)["random"], Texture.from_exemplar(rand(1, 3, 8, 8))
    y, sigma = op.A(rand(2, 3, 8, 8, seed=1)), torch.tensor([0.0, 0.1], dtype=torch.float64)
    solver = GaussianPosterior(**EXACT)
    sample = solver(y, op, prior, sigma, Noise(3, [0, 1]))
    kriging = solver.kriging(y, op, prior, sigma)
    innovation = solver.innovation(y, op, prior, sigma, Noise(3, [0, 1]))
    assert torch.allclose(kriging + innovation, sample, rtol=0, atol=1e-10)
    assert torch.allclose(op.A(innovation[:1]), torch.zeros_like(y[:1]))


@pytest.mark.parametrize("operator", ["random", "circular", "valid", "alias", "average"])
@pytest.mark.parametrize("margin", [0, 3])
def test_images_of_a_batch_are_independent(operator, margin):
    op, prior = operators(8, 3)[operator], Texture.from_exemplar(rand(1, 3, 8, 8), margin=margin)
    y = op.A(rand(3, 3, 8, 8, seed=1))
    sigma = torch.tensor([0.3, 0.0, 0.05], dtype=torch.float64)
    together = GaussianPosterior(**EXACT)(y, op, prior, sigma, Noise(1, [0, 1, 2]))
    for i in range(3):
        alone = GaussianPosterior(**EXACT)(y[i : i + 1], op, prior, sigma[i].item(), Noise(1, [i]))
        assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("operator", ["box", "circular", "motion", "valid", "alias", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("margin", [0, 8])
def test_single_precision_is_close(operator, channels, margin):
    x = torch.cumsum(rand(1, channels, 16, 16, seed=3) - 0.5, dim=3)
    x = 0.5 + 0.2 * (x - x.mean()) / x.std()
    op, prior = operators(16, channels)[operator], Texture.from_exemplar(x, margin=margin)
    for sigma in (0.02, 0.1):
        mean = GaussianPosterior("mean", **EXACT)(op.A(x), op, prior, sigma, None)
        single = GaussianPosterior("mean")(op.A(x).float(), op, prior, sigma, None)
        assert (single - mean).abs().max() < 1e-3
        assert single.dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operator", ["box", "random", "reflect"])
def test_single_precision_pictures_are_solved_to_the_tolerance(operator, channels, monkeypatch):
    residuals = []

    def recorded(matrix, b, **options):
        x = solve(matrix, b, **options)
        residuals.append(((b - matrix(x)).norm() / b.norm()).item())
        return x

    monkeypatch.setattr(linear_mmse, "solve", recorded)
    monkeypatch.setattr(linear_mmse, "NUMBERS", 0)
    u = torch.cumsum(rand(1, channels, 40, 40) - 0.5, dim=2).float() / 10 + 0.5
    op = operators(40)[operator]
    prior, sigma = Texture.from_exemplar(u, floor=0.003), 0.01 if operator == "reflect" else 0.0
    x = GaussianPosterior()(op.A(u), op, prior, sigma, Noise(0, [0]))
    assert x.dtype == torch.float32
    assert len(residuals) == 1
    assert residuals[0] <= 1e-6


def test_a_physics_of_deepinv_keeps_the_type_of_the_measurement():
    op = External(deepinv.physics.Blur(gaussian_kernel(0.5)[None, None].float(), padding="valid"))
    u = rand(1, 1, 20, 20).float()
    prior = Texture.from_exemplar(u, floor=0.05)
    x = GaussianPosterior("mean")(op.A(u), op, prior, 0.1, None)
    exactly = Blur(gaussian_kernel(0.5), boundary="valid")
    expected = GaussianPosterior("mean")(op.A(u), exactly, prior, 0.1, None)
    assert torch.allclose(x, expected, rtol=0, atol=1e-4)


def test_a_measurement_that_no_image_of_the_law_has_is_refused():
    prior = Texture.from_exemplar(rand(1, 3, 16, 16), floor=0.0)
    blur = operators(16)["reflect"]
    with pytest.raises(ArithmeticError, match="or a larger floor of the prior"):
        GaussianPosterior("mean")(rand(1, 3, 16, 16, seed=1), blur, prior, 0.0, None)


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_a_border_stands_for_all_known_pixels_of_a_markov_law(sigma):
    # rows that are an autoregression: beyond the row next to the hole nothing is learned
    n = 24
    line = 1 / (1.25 - torch.cos(2 * torch.pi * torch.arange(n, dtype=torch.float64) / n))
    prior = Texture.from_spectrum(line[:, None] * line / 50)
    keep = torch.ones(1, 1, n, n)
    keep[..., 8:14, :] = 0
    op, y = Inpainting(keep), Inpainting(keep).A(rand(1, 1, n, n))
    all_known = GaussianPosterior("mean", **EXACT)(y, op, prior, sigma, None)
    near = GaussianPosterior("mean", border=1, **EXACT)(y, op, prior, sigma, None)
    assert torch.allclose(near, all_known, rtol=0, atol=1e-9)
    assert sigma or torch.equal(op.A(near), y)


def test_with_a_border_an_image_without_noise_does_not_feel_one_with_noise():
    prior = Texture.from_spectrum(torch.full((12, 12), 0.02, dtype=torch.float64))
    keep = torch.ones(1, 1, 12, 12)
    keep[..., 4:7, 4:7] = 0
    op, y = Inpainting(keep), Inpainting(keep).A(rand(2, 1, 12, 12))
    solver = GaussianPosterior(border=2)
    levels = torch.tensor([0.0, 0.05])
    both = solver(y, op, prior, levels, Noise(0, [(0, 0), (1, 0)]))
    for i in range(2):
        alone = solver(y[i : i + 1], op, prior, levels[i : i + 1], Noise(0, [(i, 0)]))
        assert torch.allclose(alone[0], both[i], rtol=0, atol=1e-6)


@pytest.mark.parametrize("operator", ["motion", "valid", "reflect", "bicubic", "external"])
@pytest.mark.parametrize("channels", [1, 3])
def test_few_numbers_are_solved_directly_as_they_are_iteratively(operator, channels, monkeypatch):
    op, prior = operators(8, channels)[operator], priors(8, channels)["margin"]
    y = op.A(rand(3, channels, 8, 8, seed=5))
    sigma = torch.tensor([0.03, 0.0, 0.2], dtype=torch.float64)
    found = []
    for numbers, pixels in ((0, 0), (1000, 2**22), (1000, 640)):
        monkeypatch.setattr(linear_mmse, "NUMBERS", numbers)
        monkeypatch.setattr(linear_mmse, "COLUMN_PIXELS", pixels)
        found.append(GaussianPosterior("mean", **EXACT)(y, op, prior, sigma, None))
        monkeypatch.setattr(linear_mmse, "solve", None)
    assert all(torch.allclose(found[0], direct, rtol=0, atol=1e-9) for direct in found[1:])


def test_a_direct_solve_holds_few_images_at_once(monkeypatch):
    op, prior = operators(8, 3)["bicubic"], priors(8, 3)["margin"]
    monkeypatch.setattr(linear_mmse, "COLUMN_PIXELS", 640)
    counts, cov = [], Texture.cov

    def counted(self, v):
        counts.append(len(v))
        return cov(self, v)

    monkeypatch.setattr(Texture, "cov", counted)
    GaussianPosterior("mean")(op.A(rand(1, 3, 8, 8, seed=5)), op, prior, 0.1, None)
    assert max(counts) == 10 and sum(counts) >= 48


@pytest.mark.parametrize(
    ("prior", "channels"),
    [("torus", 3), ("margin", 3), ("plane", 2), ("no floor", 1), ("no floor", 3)],
)
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_few_pixels_are_solved_directly(prior, channels, sigma, monkeypatch):
    monkeypatch.delattr(linear_mmse, "solve")
    op = Inpainting(rand(1, channels, 8, 8, seed=1) > 0.8)
    check_against_dense(priors(8, channels)[prior], op, sigma, torch.Size((1, channels, 8, 8)))


def test_a_direct_solve_takes_each_image_with_its_mask_and_noise(monkeypatch):
    op = Inpainting((rand(5, 1, 12, 12, seed=1) > 0.8)[[0, 1, 1, 1, 2]])
    prior, y = Texture.from_exemplar(rand(1, 2, 12, 12)), op.A(rand(5, 2, 12, 12, seed=2))
    sigma = torch.tensor([0.1, 0.1, 0.1, 0.0, 0.2], dtype=torch.float64)
    directly = GaussianPosterior("mean")(y, op, prior, sigma, None)
    monkeypatch.setattr(linear_mmse, "PIXELS", 0)
    iterated = GaussianPosterior("mean", **EXACT)(y, op, prior, sigma, None)
    assert torch.allclose(directly, iterated, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode, border", [("sample", 0), ("sample", 2), ("mean", 0)])
def test_many_images_are_computed_few_at_a_time(mode, border, monkeypatch):
    op = Inpainting(rand(7, 1, 8, 8, seed=1) > 0.4)
    prior, y = Texture.from_exemplar(rand(1, 2, 8, 8)), op.A(rand(7, 2, 8, 8, seed=2))
    sigma = torch.tensor([0.0, 0.1, 0.05, 0.0, 0.0, 0.2, 0.1], dtype=torch.float64)
    solver, keys = GaussianPosterior(mode, border, **EXACT), list(range(7))
    whole = solver(y, op, prior, sigma, Noise(0, keys))
    monkeypatch.setattr(posterior, "NUMBERS", 3 * 2 * 64)
    counts, factor = [], Texture.factor

    def counted(self, shape, like):
        counts.append(shape[0])
        return factor(self, shape, like)

    monkeypatch.setattr(Texture, "factor", counted)
    parts = solver(y, op, prior, sigma, Noise(0, keys))
    assert max(counts) == 3 and sum(counts) >= 7
    assert torch.allclose(parts, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda op, y, p: GaussianPosterior("map"), "'sample' or 'mean'"),
        (lambda op, y, p: GaussianPosterior(border=-1), "border must be >= 0"),
        (
            lambda op, y, p: GaussianPosterior(border=3).kriging(y, op, p, torch.tensor([0.1])),
            "for noise_std 0 only",
        ),
        (
            lambda op, y, p: GaussianPosterior(border=3)(y, Denoising(), p, 0.0, Noise(0, [0])),
            "needs a mask with holes",
        ),
    ],
)
def test_errors(call, message):
    op, prior = operators(8)["box"], Texture.from_exemplar(rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match=message):
        call(op, op.A(rand(1, 1, 8, 8)), prior)
