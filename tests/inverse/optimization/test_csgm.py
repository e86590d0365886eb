import math

import pytest
import torch
from contracts import NOISE_STD, check_solver, measure, measurements
from linear import linear, posterior_means, relative_error
from oracles import Dense, Replay, normals
from torch import Tensor

from genprior import restore
from genprior.core.errors import SettingError
from genprior.core.random_streams import Noise
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.inverse.optimization.csgm import CSGM
from genprior.operators.base import Operator
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.base import Decoder, Denoiser
from genprior.priors.texture import Texture

NOISE = Noise(0, [0, 1, 2])
STEPS = {"adam": 300, "lbfgs": 100}


class Folded(Decoder):
    """Images of a wave of the latent, with many local minima; keeps its latents."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return image_shape[0], 2

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        self.seen.append(z.detach())
        weight = normals(1, 2, image_shape[1:].numel(), seed=3)[0]
        return 0.5 + 0.4 * torch.sin(3 * z @ weight).reshape(image_shape)


@pytest.mark.parametrize("optimiser", STEPS)
def test_laws(optimiser: str) -> None:
    check_solver(CSGM(steps=5, restarts=2, optimiser=optimiser), seeded=True)


@pytest.mark.parametrize("optimiser", STEPS)
@pytest.mark.parametrize("floor", [0.0, 0.05])
@pytest.mark.parametrize(
    "op, shape", [pytest.param(*rest, id=name) for name, *rest in measurements(3)]
)
def test_a_linear_decoder_gives_the_posterior_mean(
    op: Operator, shape: tuple[int, int, int], floor: float, optimiser: str
) -> None:
    prior, S = linear(shape, floor)
    sigma = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    y = measure(op, Dense().draw(3, shape), sigma)
    exact = posterior_means(op, S, y, sigma, 0.4)
    x = CSGM(STEPS[optimiser], restarts=2, optimiser=optimiser)(y, op, prior, sigma, NOISE)
    assert relative_error(x, exact, 0.4) < 1e-4


def test_a_given_penalty_replaces_the_variance_of_the_noise() -> None:
    prior, S = linear((1, 5, 4), 0.0)
    y = measure(Denoising(), Dense().draw(3, (1, 5, 4)), torch.tensor(NOISE_STD))
    ridge = torch.linalg.solve(S + 0.3 * torch.eye(20, dtype=S.dtype), (y - 0.4).flatten(1).mT)
    exact = 0.4 + (S @ ridge).mT.reshape(y.shape)
    sigma = torch.tensor(NOISE_STD)
    x = CSGM(100, penalty=0.3, optimiser="lbfgs")(y, Denoising(), prior, sigma, NOISE)
    assert relative_error(x, exact, 0.4) < 1e-6


def test_a_latent_may_be_larger_than_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    exemplar = torch.rand(1, 3, 6, 7, generator=generator, dtype=torch.float64)
    prior = Texture.from_exemplar(exemplar, margin=3)
    op = Inpainting(random_keep((3, 1, 8, 9), 0.4))
    sigma = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    y = measure(op, 0.5 + 0.2 * normals(1, 3, 3, 8, 9)[0], sigma)
    exact = GaussianPosterior("mean", tolerance=1e-12)(y, op, prior, sigma, NOISE)
    x = CSGM(150, restarts=1, optimiser="lbfgs")(y, op, prior, sigma, NOISE)
    assert relative_error(x, exact, 0.5) < 1e-4


@pytest.mark.parametrize("optimiser", STEPS)
def test_the_start_that_fits_the_measurement_best_is_kept(optimiser: str) -> None:
    shape, restarts, penalty = (1, 3, 4), 6, 0.2
    op = Inpainting(random_keep((4, 1, 3, 4), 0.3, seed=1))
    start = normals(1, 4, restarts, 2, seed=8)[0]
    target = Folded().decode(normals(1, 4, 2, seed=9)[0], torch.Size((4, *shape)))
    y = measure(op, target, torch.tensor(0.05))

    def run(z: Tensor) -> tuple[Tensor, Tensor]:
        prior = Folded()
        solver = CSGM(40, restarts=z.shape[1], penalty=penalty, optimiser=optimiser)
        return solver(y, op, prior, 0.05, Replay([z])), prior.seen[-1]

    alone = [run(start[:, k : k + 1]) for k in range(restarts)]
    x = torch.stack([x for x, _ in alone])
    fit = torch.stack([(op.A(u) - y).flatten(1).square().sum(dim=1) for u in x])
    total = fit + penalty * torch.stack([z.square().sum(dim=1) for _, z in alone])
    best = fit.argmin(dim=0)
    assert len(set(best.tolist())) > 1 and not torch.equal(best, total.argmin(dim=0))
    expected = x[best, torch.arange(4)]
    torch.testing.assert_close(run(start)[0], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("optimiser", STEPS)
def test_a_start_that_is_not_finite_never_wins(optimiser: str) -> None:
    class Fragile(Folded):
        def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
            broken = torch.where(z[:, :1] > 5, torch.nan, 0.0)
            return super().decode(z + broken, image_shape)

    start = torch.tensor([[[9.0, 0], [0.1, 0.2]], [[0.1, 0.2], [9, 0]]]).double()
    y = torch.full((2, 1, 3, 4), 0.5, dtype=torch.float64)
    solver = CSGM(3, restarts=2, optimiser=optimiser)
    x = solver(y, Denoising(), Fragile(), 0.1, Replay([start]))
    assert x.isfinite().all() and torch.equal(x[0], x[1])


def test_the_seed_decides_between_local_minima() -> None:
    y = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1)).double()
    solver = CSGM(20, restarts=1)
    x = [solver(y, Denoising(), Folded(), 0.1, Noise(seed, [0, 1])) for seed in (0, 0, 1)]
    assert torch.equal(x[0], x[1]) and not torch.allclose(x[0], x[2], atol=1e-2)


def test_hidden_measurements_do_not_count() -> None:
    prior, op = Folded(), Inpainting(random_keep((1, 1, 3, 4), 0.5))
    y = op.A(torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1)).double())
    junk = y + 7 * (1 - op.mask_unmeasured(torch.ones_like(y)))
    x = [CSGM(5)(data, op, prior, 0.1, Noise(0, [0, 1])) for data in (y, junk)]
    assert torch.equal(x[0], x[1])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
        ({"step_size": 0.0}, "step_size must be > 0 and finite, got 0.0"),
        ({"step_size": math.inf}, "step_size must be > 0 and finite, got inf"),
        ({"penalty": -1.0}, "penalty must be >= 0 and finite, or None .* got -1.0"),
        ({"penalty": math.nan}, "penalty must be >= 0 and finite, or None .* got nan"),
        ({"optimiser": "sgd"}, "optimiser must be 'adam' or 'lbfgs', got 'sgd'"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CSGM(**settings)


def test_a_prior_without_a_decoder_is_refused() -> None:
    class Blind(Denoiser):
        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            return x

    with pytest.raises(TypeError, match="CSGM needs a prior that is a decoder, and Blind is not"):
        CSGM()(torch.zeros(1, 1, 2, 2), Denoising(), Blind(), 0.1, Noise(0, [0]))


def test_restore_takes_it_by_name_and_keeps_its_own_default() -> None:
    prior, _ = linear((3, 6, 5), 0.0)
    op, sigma = Inpainting(random_keep((2, 1, 6, 5), 0.4)), [0.05, 0.1]
    y = op.A(Dense().draw(2, (3, 6, 5))).float()
    result = restore(y, op, prior=prior, solver="csgm", steps=300, noise_std=sigma)
    assert (result.solver, result.prior, result.nfe) == ("csgm", "PCA", 10 * 301)
    exact = restore(y, op, prior=prior, solver=GaussianPosterior("mean"), noise_std=sigma)
    assert result.image.dtype == torch.float32
    assert relative_error(result.image, exact.image, 0.4) < 1e-3
    alone = restore(y[1:], op.select([1]), prior, "csgm", sigma[1], steps=20, index=1)
    together = restore(y, op, prior, "csgm", sigma, steps=20)
    assert torch.equal(alone.image[0], together.image[1])
    assert restore(y, op, prior=prior, noise_std=sigma).solver == "gaussian"
    with pytest.raises(SettingError, match="csgm returns one image, not 2 posterior samples"):
        restore(y, op, prior=prior, solver="csgm", noise_std=sigma, samples=2)
