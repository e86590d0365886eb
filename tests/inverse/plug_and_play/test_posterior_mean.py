import pytest
import torch
from contracts import check_solver, dense, measure
from oracles import Crooked, Dense, Seeing, normals

from genprior.api.factory import default_solver
from genprior.api.restoration import restore
from genprior.core.random_streams import Noise
from genprior.core.symmetries import turn
from genprior.inverse.plug_and_play.posterior_mean import PosteriorMean
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.gmm import GMM

NOISE = Noise(0, [0, 1])


@pytest.mark.parametrize("views", [1, 3, 8])
def test_laws(views: int) -> None:
    check_solver(PosteriorMean(views), operators=("denoising",))


def test_one_turn_is_the_denoiser() -> None:
    y = 0.5 + 0.3 * normals(1, 2, 3, 5, 4)[0]
    noise_std = torch.tensor([0.1, 0.3])
    x = PosteriorMean(views=1)(y, Denoising(), Crooked(), noise_std, NOISE)
    assert torch.equal(x, Crooked().denoise(y, noise_std.double()))


@pytest.mark.parametrize("k", range(8))
def test_turning_the_image_turns_the_answer(k: int) -> None:
    y = 0.5 + 0.3 * normals(1, 2, 1, 5, 4)[0]
    solver, prior = PosteriorMean(views=8), Crooked()
    prior.symmetries = range(8)
    x = solver(y, Denoising(), prior, 0.2, NOISE)
    turned = solver(turn(y, k), Denoising(), prior, 0.2, NOISE)
    torch.testing.assert_close(turned, turn(x, k), rtol=0, atol=1e-14)
    assert (x - prior.denoise(y, 0.2)).abs().max() > 1e-3, "the prior should care about turns"


def test_only_symmetries_of_the_prior_are_averaged() -> None:
    y, prior = 0.5 + 0.3 * normals(1, 2, 1, 5, 4)[0], Crooked()
    prior.symmetries = (0, 4)
    x = PosteriorMean()(y, Denoising(), prior, 0.2, NOISE)
    mirrored = prior.denoise(y.flip(-1), 0.2).flip(-1)
    assert torch.equal(x, (prior.denoise(y, 0.2) + mirrored) / 2)
    assert PosteriorMean().evaluations(prior) == 2
    assert PosteriorMean(views=1).evaluations(prior) == 1


def test_a_law_without_symmetries_is_not_turned() -> None:
    """And images that are not square stay as they are, which a mixture of one size asks for."""
    means = 0.5 + 0.2 * normals(1, 2, 3, 4, 5)[0].float()
    roots = 0.02 * normals(1, 2, 60, 60, seed=1)[0].float()
    prior, y = GMM(torch.ones(2), means, roots @ roots.mT), means + 0.1
    result = restore(y, Denoising(), prior, noise_std=0.1)
    torch.testing.assert_close(result.image, prior.denoise(y, 0.1))
    assert (result.solver, result.nfe) == ("posterior-mean", 1)


@pytest.mark.parametrize("views", [1, 8])
def test_it_is_the_posterior_mean_of_a_gaussian(views: int) -> None:
    prior, noise_std, shape = Dense(), 0.15, (3, 4, 5)
    y = measure(Denoising(), prior.draw(2, shape), torch.tensor(noise_std))
    S = prior.cov(shape)
    noisy = S + noise_std**2 * torch.eye(len(S), dtype=S.dtype)
    expected = 0.5 + torch.linalg.solve(noisy, (y - 0.5).flatten(1).mT).mT @ S
    x = PosteriorMean(views)(y, Denoising(), prior, noise_std, NOISE)
    torch.testing.assert_close(x.flatten(1), expected, rtol=0, atol=1e-12)


def test_without_noise_the_measurement_is_the_answer() -> None:
    y = 0.5 + 0.3 * normals(1, 2, 1, 5, 4)[0]
    x = PosteriorMean()(y, Denoising(), Crooked(), torch.tensor([0.0, 0.1]), NOISE)
    assert torch.equal(x[0], y[0])
    assert not torch.equal(x[1], y[1])


@pytest.mark.parametrize("noise_std", [0.0, 0.15])
@pytest.mark.parametrize("views", [1, 8])
def test_it_is_the_posterior_mean_of_an_image_with_holes(views: int, noise_std: float) -> None:
    prior, shape = Seeing(), (3, 4, 5)
    op = Inpainting(random_keep((2, 1, 4, 5), 0.6))
    y = measure(op, prior.draw(2, shape), torch.tensor(noise_std))
    x = PosteriorMean(views)(y, op, prior, noise_std, NOISE)
    S = prior.cov(shape)
    for i in range(2):
        A = dense(op.select([i]), y[:1])
        seen = A @ S @ A.mT + noise_std**2 * torch.eye(len(S), dtype=S.dtype)
        r = (y[i] - A.diagonal().reshape(shape) / 2).flatten()
        expected = 0.5 + S @ A.mT @ torch.linalg.pinv(seen, hermitian=True) @ (r * A.diagonal())
        torch.testing.assert_close(x[i], expected.reshape(shape), rtol=0, atol=1e-9)
    known = op.mask_unmeasured(torch.ones_like(y)) > 0
    assert torch.equal(x[known], y[known]) == (noise_std == 0)


def test_every_image_has_its_own_noise_level() -> None:
    prior, op = Seeing(), Inpainting(random_keep((1, 1, 4, 5), 0.6))
    y = op.A(prior.draw(2, (3, 4, 5)))
    x = PosteriorMean()(y, op, prior, torch.tensor([0.0, 0.2]).double(), NOISE)
    for i, level in enumerate(torch.tensor([0.0, 0.2]).double()):
        alone = PosteriorMean()(y[i : i + 1], op, prior, level, Noise(0, [i]))
        torch.testing.assert_close(x[i : i + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "op", [Inpainting(torch.arange(48).reshape(1, 3, 4, 4) % 5 > 1), SuperResolution(2)]
)
def test_it_only_denoises_and_fills_holes(op: object) -> None:
    with pytest.raises(ValueError, match="only denoises and fills holes: choose another sol"):
        PosteriorMean()(torch.zeros(2, 3, 4, 4), op, Seeing(), 0.1, NOISE)


def test_a_prior_must_know_of_holes() -> None:
    op = Inpainting(random_keep((1, 1, 4, 4), 0.5))
    with pytest.raises(ValueError, match="only denoises with this prior, which cannot fill"):
        PosteriorMean()(torch.zeros(2, 1, 4, 4), op, Crooked(), 0.1, NOISE)


def test_where_it_is_the_default() -> None:
    holes = Inpainting(random_keep((1, 3, 4, 4), 0.5))
    assert default_solver(Denoising(), Seeing(), 1) == "posterior-mean"
    assert default_solver(holes, Seeing(), 1) == "hqs"
    assert default_solver(Denoising(), Seeing(), 2) == "moment-matched"


@pytest.mark.parametrize("views", [0, 9])
def test_errors(views: int) -> None:
    with pytest.raises(ValueError, match=f"views must be between 1 and 8, got {views}"):
        PosteriorMean(views)


def test_better_qualities_average_more_views() -> None:
    y, views = torch.zeros(1, 1, 4, 4), []
    for quality in ("fast", "default", "best"):
        solver = PosteriorMean().suited(y, Denoising(), Crooked(), 0.1, quality)
        views.append(solver.views)
    assert views == sorted(set(views)) and views[0] == 1
