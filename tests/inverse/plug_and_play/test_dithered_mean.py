import pytest
import torch
from oracles import Crooked, Dense
from torch import Tensor

from genprior.api.factory import default_solver, make_solver
from genprior.api.restoration import restore
from genprior.core.errors import SettingError
from genprior.core.random_streams import Noise
from genprior.inverse.plug_and_play.dithered_mean import DitheredMean
from genprior.operators.base import Operator
from genprior.operators.denoising import Denoising
from genprior.operators.jpeg import JPEG, block_dct

SHAPE = (3, 16, 32)


def scene(count: int = 4) -> tuple[Dense, Tensor]:
    prior = Dense(std=0.15, length=6.0)
    return prior, prior.draw(count, SHAPE).clamp(0.1, 0.9)


def outside(x: Tensor, y: Tensor, operator: JPEG) -> float:
    """Returns the largest distance of a coefficient from its cell, in grey levels."""
    planes = operator._planes(255 * x)
    return max(
        ((block_dct(plane) - cells.centre).abs() - cells.half).max().item()
        for plane, cells in zip(planes, operator.cells(y), strict=True)
    )


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0"])
def test_the_answer_lies_in_the_cells_and_is_nearer_to_the_truth(sampling: str) -> None:
    prior, x = scene()
    operator = JPEG(20, sampling)
    y = operator.A(x)
    answer = DitheredMean()(y, operator, prior, 0.0, Noise(0, range(4)))
    assert outside(answer, y, operator) < 1e-6
    before, after = ((image - x).square().flatten(1).mean(1) for image in (y, answer))
    assert (after < before).all()


@pytest.mark.parametrize("solver", ["hqs", "diffpir"])
def test_solvers_that_project_keep_near_the_cells(solver: str) -> None:
    prior, x = scene(2)
    operator = JPEG(20, "4:4:4")
    y = operator.A(x)
    answer = make_solver(solver, steps=6)(y, operator, prior, 0.0, Noise(0, [0, 1]))
    unguided = prior.mean.expand_as(y)
    assert outside(answer, y, operator) < outside(unguided, y, operator) / 20
    if solver == "hqs":  # a sample has up to twice the error of a mean
        assert (answer - x).square().mean() < (y - x).square().mean()


def test_images_are_independent_and_the_noise_is_seeded() -> None:
    prior, x = scene(3)
    operator = JPEG(30)
    y, keys = operator.A(x), [(4, 0), (4, 1), (9, 0)]
    solver = DitheredMean(steps=3)
    prior.calls.clear()
    together = solver(y, operator, prior, 0.0, Noise(0, keys))
    assert sum(shape[0] for shape in prior.calls) == 3 * solver.nfe
    assert not torch.equal(together, solver(y, operator, prior, 0.0, Noise(1, keys)))
    for i, key in enumerate(keys):
        alone = solver(y[i : i + 1], operator, prior, 0.0, Noise(0, [key]))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)


def test_only_symmetries_of_the_prior_are_used() -> None:
    prior, operator = Crooked(), JPEG(30)
    prior.symmetries = (0,)
    y = operator.A(scene(1)[1])
    solver = DitheredMean(steps=2, spread=0.0)
    noise = Noise(0, [0]).normal(y) * solver.strength * operator.error_std(y) ** solver.power
    sigma = solver.excess * solver.strength * operator.error_std(y) ** solver.power
    mean = (prior.denoise(y + noise, sigma) + prior.denoise(y - noise, sigma)) / 2
    answer = solver(y, operator, prior, 0.0, Noise(0, [0]))
    torch.testing.assert_close(answer, operator.prox(mean, y, 0.0), rtol=0, atol=1e-12)


def test_it_is_the_default_for_jpeg() -> None:
    prior, _ = scene(1)
    assert default_solver(JPEG(30), prior, 1) == "dithered-mean"
    assert default_solver(JPEG(30), prior, 4) == "diffpir"


@pytest.mark.parametrize(("solver", "operator", "message"), [
    ("dithered-mean", Denoising(), "only restores rounded images, such as JPEG"),
    ("dps", JPEG(30), "needs an operator with a gradient, and JPEG has none: choose dithered"),
])
def test_what_does_not_fit_is_refused(solver: str, operator: Operator, message: str) -> None:
    y = torch.full((1, 3, 16, 16), 0.5)
    with pytest.raises(SettingError, match=message):
        restore(y, operator, Dense(dtype=torch.float32), solver)


@pytest.mark.parametrize("noise", [0.1, "auto"])
def test_a_jpeg_has_no_other_noise(noise: float | str) -> None:
    y = torch.full((1, 3, 16, 16), 0.5)
    with pytest.raises(SettingError, match="error (of JPEG )?is that of rounding"):
        restore(y, JPEG(30), Dense(dtype=torch.float32), noise_std=noise)
