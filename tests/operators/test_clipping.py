import math

import pytest
import torch
from nonlinear import check_jacobian
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.operators.clipping import Clipping, Gamma
from genprior.operators.nonlinear import NonlinearOperator

KINDS = [Clipping(2.0), Clipping(2.0, pivot=0.5), Clipping(1.5, 0.25, white=0.9),
         Clipping(3.0, pivot=1.0)]


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("op", [*KINDS, Gamma(), Gamma(2.2)])
def test_derivatives_agree_with_finite_differences(op: NonlinearOperator) -> None:
    check_jacobian(op, 0.01 + 0.9 * images(2, 3, 4, 5), rtol=1e-6)


def test_the_operator_of_papers_is_a_pivot_of_one_half() -> None:
    x = images(2, 3, 4, 5)
    theirs = torch.clip(2 * (2 * x - 1), -1, 1)
    torch.testing.assert_close(2 * Clipping(2.0, pivot=0.5).A(x) - 1, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize("rho", [0.0, 0.05, 1.0, 30.0])
def test_the_proximal_map_is_the_minimum_on_a_grid(op: Clipping, rho: float) -> None:
    x = 1.6 * images(1, 1, 6, 8) - 0.3
    y = op.A(images(1, 1, 6, 8, seed=1)) + 0.05 * (images(1, 1, 6, 8, seed=2) - 0.5)
    grid = torch.linspace(-0.5, 1.5, 200_001, dtype=torch.float64)

    def cost(u: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (op.A(u) - y) ** 2 + rho * (u - x) ** 2

    u = op.prox(x, y, rho)
    for x_i, y_i, u_i in zip(x.flatten(), y.flatten(), u.flatten(), strict=True):
        costs = cost(grid, x_i, y_i)
        assert cost(u_i, x_i, y_i) <= costs.min() + 1e-12
        if rho == 0:  # among the best the nearest; on the grid to its spacing
            best = grid[costs <= costs.min() + 1e-9]
            assert (u_i - x_i).abs() <= (best - x_i).abs().min() + 1e-4


def test_rho_may_differ_between_images() -> None:
    op, x, y = Clipping(), images(2, 1, 4, 5), images(2, 1, 4, 5, seed=1)
    found = op.prox(x, y, torch.tensor([0.0, 2.0]).double())
    assert torch.equal(found[:1], op.prox(x[:1], y[:1], 0.0))
    assert torch.equal(found[1:], op.prox(x[1:], y[1:], 2.0))


def test_known_pixels_are_exact_and_clipped_ones_free() -> None:
    op, truth = Clipping(2.0, white=0.95), images(1, 3, 6, 7)
    y, guess = op.A(truth), torch.full((1, 3, 6, 7), 0.8, dtype=torch.float64)
    clipped = truth >= 0.475
    assert clipped.any() and (~clipped).any()
    kept = op.keep_known(guess, y)
    torch.testing.assert_close(kept[~clipped], truth[~clipped], rtol=0, atol=1e-12)
    assert (kept[clipped] == 0.8).all()
    assert (op.keep_known(0 * guess, y)[clipped] - 0.475).abs().max() < 1e-12
    assert (op.pinv(y) <= 0.475 + 1e-12).all()
    J, _ = op.linearised(op.expansion_point(y), y)
    assert torch.equal(J.gram(torch.ones_like(y)) == 0, clipped)  # the start knows nothing there


@pytest.mark.parametrize("pivot", [0.0, 0.5])
def test_noise_does_not_make_clipped_pixels_known(pivot: float) -> None:
    op, truth = Clipping(2.0, pivot), images(1, 3, 40, 50)
    exact, (low, high) = op.A(truth), op.limits
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1)).double()
    y = exact + 0.025 * noise
    above, below = truth >= high, truth <= low
    clipped = above | below if pivot else above
    snapped = op.snapped(y)
    is_limit = (snapped == 1) | (snapped == 0) if pivot else snapped == 1
    assert is_limit[clipped].double().mean() > 0.995
    far = ~clipped & ((exact - 0.5).abs() < 0.5 - 6 * 0.025)  # six deviations from the limits
    assert torch.equal(snapped[far], y[far])
    assert torch.equal(op.snapped(exact), exact)
    beyond = op.proximal(y)(truth, 0.01)[clipped & is_limit]
    assert torch.equal(beyond, truth[clipped & is_limit])  # one-sided: the data say no more
    grey = torch.full_like(truth, 0.4)
    drawn, expected = op.proximal(y)(grey, 0.01), op.prox(grey, exact, 0.01)
    assert torch.equal(drawn[clipped & is_limit], expected[clipped & is_limit])


def test_the_start_is_lifted_in_spite_of_noise() -> None:
    op, truth = Clipping(2.0), 0.2 * images(8, 1, 40, 40)
    truth[..., 10:30, 10:30] = 0.8
    y = op.A(truth)
    noise = 0.025 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).double()
    exact, noisy = op.expansion_point(y), op.expansion_point(y + noise)
    middle = (slice(None), slice(None), slice(15, 25), slice(15, 25))
    assert (exact[middle] > 0.6).all()
    close = (noisy - exact).abs()[middle] < 0.02
    assert close.double().mean() > 0.99  # noise moves 1 in 700 by more than 3 deviations
    alone = op.expansion_point((y + noise)[1:])
    assert torch.equal(alone[0], noisy[1])


def test_values_of_files_are_taken_as_they_are() -> None:
    op, y = Clipping(2.0, white=250 / 255), images(1, 3, 6, 7)
    assert torch.equal(op.snapped(y), y.clamp(max=op.white))


@pytest.mark.parametrize("gamma", [1 / 2.2, 1.0, 3.0])
def test_a_power_law_is_inverted(gamma: float) -> None:
    op, x = Gamma(gamma), torch.linspace(-0.1, 1.2, 200).double().reshape(1, 1, 10, 20)
    above = x > Gamma.STRAIGHT
    torch.testing.assert_close(op.A(x)[above], x[above] ** gamma, rtol=1e-12, atol=0)
    torch.testing.assert_close(op.pinv(op.A(x)), x, rtol=0, atol=1e-12)
    torch.testing.assert_close(op.keep_known(0 * x, op.A(x)), x, rtol=0, atol=1e-12)
    assert (op.A(x).diff(dim=-1) > 0).all()


@pytest.mark.parametrize(("settings", "message"), [
    ({"factor": 1.0}, "factor must be > 1 and finite, got 1.0"),
    ({"factor": math.inf}, "factor must be > 1"),
    ({"pivot": 1.5}, "pivot must be between 0 and 1, got 1.5"),
    ({"pivot": 0.5, "white": 0.4}, "white must be above the pivot and at most 1, got 0.4"),
    ({"white": 1.2}, "white must be above"),
])
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Clipping(**settings)


def test_other_errors() -> None:
    with pytest.raises(SettingError, match="gamma must be > 0 and finite, got 0"):
        Gamma(0)
    for op in (Clipping(), Gamma()):
        with pytest.raises(ValueError, match=r"images must be a batch .*, got shape \(3, 4, 5\)"):
            op.image_shape(torch.Size((3, 4, 5)))
