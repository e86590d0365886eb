import pytest
import torch
from oracles import Dense
from torch import Tensor

from genprior import make_operator, restore
from genprior.core.errors import SettingError
from genprior.core.random_streams import Noise
from genprior.inverse.plug_and_play.dithered_mean import DitheredMean
from genprior.operators.quantisation import Quantisation


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("levels", [2, 3, 8, 256])
def test_values_are_rounded_and_the_truth_lies_in_the_cell(levels: int) -> None:
    op, x = Quantisation(levels), images(2, 3, 6, 7)
    y = op.A(x)
    assert len(y.unique()) <= levels and torch.equal(op.A(y), y)
    assert ((x - y).abs() <= op.half + 1e-12).all()
    torch.testing.assert_close(op.prox(x, y, 0.0), x, rtol=0, atol=0)
    projected = op.prox(2 * images(2, 3, 6, 7, seed=1) - 0.5, y, 1.0)
    inner = (y > 0) & (y < 1)
    assert ((projected - y).abs()[inner] <= op.half + 1e-12).all()
    assert op.unexplained(y).tolist() == [0, 0]


def test_black_and_white_reach_beyond_the_range() -> None:
    op = Quantisation(2)
    x = torch.tensor([[[[-0.2, 1.3, 0.7, 0.2]]]])
    y = torch.tensor([[[[0.0, 1.0, 0.0, 1.0]]]])
    torch.testing.assert_close(op.prox(x, y, 0.0), torch.tensor([[[[-0.2, 1.3, 0.5, 0.5]]]]))


def test_a_wide_spread_gives_the_middle_of_the_cell() -> None:
    op = Quantisation(5)
    y = op.A(images(1, 1, 4, 5))
    mean = op.conditional_mean(torch.full_like(y, 0.5), y, 50.0)
    inner = (y > 0) & (y < 1)
    torch.testing.assert_close(mean[inner], y[inner], rtol=0, atol=1e-4)
    assert op.error_std(y).item() == pytest.approx(0.25 / 12**0.5)


def test_posterised_images_come_nearer_to_the_truth() -> None:
    prior = Dense(std=0.2, length=6.0)
    x = prior.draw(3, (1, 16, 20)).clamp(0.05, 0.95)
    op = Quantisation(6)
    y = op.A(x)
    answer = DitheredMean()(y, op, prior, 0.0, Noise(0, range(3)))
    before, after = ((v - x).square().flatten(1).mean(dim=1) for v in (y, answer))
    assert (after < 0.75 * before).all()
    assert ((answer - y).abs() <= op.half + 1e-9).all()


def test_values_between_the_levels_are_told() -> None:
    op = make_operator("quantise", levels=4)
    y = images(1, 3, 16, 16).float()
    assert op.unexplained(y) > 0.9
    with pytest.warns(UserWarning, match="of its values are none of the 4 levels"):
        restore(y, op, Dense(dtype=torch.float32), steps=2)


def test_errors() -> None:
    with pytest.raises(SettingError, match="levels must be a whole number of at least 2, got 1"):
        Quantisation(1)
    with pytest.raises(ValueError, match="images must be a batch"):
        Quantisation().image_shape(torch.Size((4, 5)))
    with pytest.raises(SettingError, match="solver DPS needs a linear|with a gradient, and Quant"):
        restore(torch.zeros(1, 1, 8, 8), Quantisation(), Dense(dtype=torch.float32), "dps")
