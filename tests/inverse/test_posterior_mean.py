import pytest
import torch
from contracts import check_solver, measure
from oracles import Crooked, Dense, normals

from genprior.inverse.posterior_mean import PosteriorMean
from genprior.inverse.symmetry import turn
from genprior.noise import Noise
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution

NOISE = Noise(0, [0, 1])


@pytest.mark.parametrize("turns", [1, 3, 8])
def test_laws(turns: int) -> None:
    check_solver(PosteriorMean(turns), operators=("denoising",))


def test_one_turn_is_the_denoiser() -> None:
    y = 0.5 + 0.3 * normals(1, 2, 3, 5, 4)[0]
    noise_std = torch.tensor([0.1, 0.3])
    x = PosteriorMean(turns=1)(y, Denoising(), Crooked(), noise_std, NOISE)
    assert torch.equal(x, Crooked().denoise(y, noise_std.double()))


@pytest.mark.parametrize("k", range(8))
def test_turning_the_image_turns_the_answer(k: int) -> None:
    y = 0.5 + 0.3 * normals(1, 2, 1, 5, 4)[0]
    solver, prior = PosteriorMean(turns=8), Crooked()
    x = solver(y, Denoising(), prior, 0.2, NOISE)
    turned = solver(turn(y, k), Denoising(), prior, 0.2, NOISE)
    torch.testing.assert_close(turned, turn(x, k), rtol=0, atol=1e-14)
    assert (x - prior.denoise(y, 0.2)).abs().max() > 1e-3, "the prior should care about turns"


@pytest.mark.parametrize("turns", [1, 8])
def test_it_is_the_posterior_mean_of_a_gaussian(turns: int) -> None:
    prior, noise_std, shape = Dense(), 0.15, (3, 4, 5)
    y = measure(Denoising(), prior.draw(2, shape), torch.tensor(noise_std))
    S = prior.cov(shape)
    noisy = S + noise_std**2 * torch.eye(len(S), dtype=S.dtype)
    expected = 0.5 + torch.linalg.solve(noisy, (y - 0.5).flatten(1).mT).mT @ S
    x = PosteriorMean(turns)(y, Denoising(), prior, noise_std, NOISE)
    torch.testing.assert_close(x.flatten(1), expected, rtol=0, atol=1e-12)


def test_without_noise_the_measurement_is_the_answer() -> None:
    y = 0.5 + 0.3 * normals(1, 2, 1, 5, 4)[0]
    x = PosteriorMean()(y, Denoising(), Crooked(), torch.tensor([0.0, 0.1]), NOISE)
    assert torch.equal(x[0], y[0])
    assert not torch.equal(x[1], y[1])


@pytest.mark.parametrize(
    "op", [Inpainting(random_keep((1, 1, 4, 4), 0.5)), SuperResolution(2, image_size=(8, 8))]
)
def test_it_only_denoises(op: object) -> None:
    with pytest.raises(ValueError, match="'posterior-mean' only denoises: choose another"):
        PosteriorMean()(torch.zeros(2, 1, 4, 4), op, Crooked(), 0.1, NOISE)


@pytest.mark.parametrize("turns", [0, 9])
def test_errors(turns: int) -> None:
    with pytest.raises(ValueError, match=f"turns must be between 1 and 8, got {turns}"):
        PosteriorMean(turns)
