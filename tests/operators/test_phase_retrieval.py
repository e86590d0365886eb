import numpy as np
import pytest
import torch
from nonlinear import check_jacobian
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.operators import phase_retrieval
from genprior.operators.nonlinear import NonlinearOperator
from genprior.operators.phase_retrieval import CodedDiffraction, FourierMagnitude, PhaseRetrieval

KINDS = [PhaseRetrieval(), PhaseRetrieval(1.5), PhaseRetrieval(1.0), CodedDiffraction(3)]


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 4)])
def test_derivatives_agree_with_finite_differences(
    op: NonlinearOperator, shape: tuple[int, ...]
) -> None:
    x = images(*shape)
    assert op.image_shape(op.A(x).shape) == x.shape
    check_jacobian(op, x, rtol=1e-6)


def test_magnitudes_agree_with_numpy() -> None:
    x = images(2, 3, 5, 8)
    expected = np.abs(np.fft.fft2(np.pad(x.numpy(), ((0, 0), (0, 0), (0, 5), (0, 8)))))
    expected = torch.from_numpy(expected) / 160**0.5
    torch.testing.assert_close(PhaseRetrieval().A(x), expected, rtol=1e-12, atol=1e-12)
    moved = np.abs(np.fft.fft2(np.pad(x.numpy(), ((0, 0), (0, 0), (2, 3), (4, 4)))))
    torch.testing.assert_close(PhaseRetrieval().A(x), torch.from_numpy(moved) / 160**0.5)
    op = CodedDiffraction(4, seed=2)
    masks = op.pattern(x).numpy()
    y = op.A(x).numpy().reshape(2, 3, 4, 5, 8)
    for k in range(4):
        expected = np.abs(np.fft.fft2(masks[k] * x.numpy(), norm="ortho"))
        np.testing.assert_allclose(y[:, :, k], expected, atol=1e-12)


def test_energy_is_that_of_the_image() -> None:
    x = images(1, 3, 6, 7)
    for op in KINDS[:3]:
        assert op.A(x).square().sum().item() == pytest.approx(x.square().sum().item())
    masks = CodedDiffraction(1000).pattern(x)
    assert masks.abs().square().mean() == pytest.approx(1.0, rel=0.02)  # 4/5 1/2 + 1/5 3
    assert masks.mean().abs() < 0.02
    assert torch.equal(CodedDiffraction(4).pattern(x), CodedDiffraction(4).pattern(x))
    assert not torch.equal(CodedDiffraction(4).pattern(x), CodedDiffraction(4, 1).pattern(x))


def test_a_half_turn_cannot_be_seen_without_masks() -> None:
    x = images(1, 1, 6, 7)
    turned = x.flip(-1, -2)
    torch.testing.assert_close(PhaseRetrieval().A(turned), PhaseRetrieval().A(x))
    coded = CodedDiffraction(2)
    assert (coded.A(turned) - coded.A(x)).abs().max() > 0.1


@pytest.mark.parametrize("op", [PhaseRetrieval(), CodedDiffraction(3), CodedDiffraction(4)])
def test_the_start_is_an_image_that_explains_much_of_the_measurement(op: FourierMagnitude) -> None:
    x = images(2, 1, 8, 9)
    x[..., :3, :] = 0
    y = op.A(x)
    start = op.expansion_point(y)
    assert start.shape == x.shape and (start >= 0).all() and (start <= 1).all()
    grey = torch.full_like(x, 0.5)
    assert (op.A(start) - y).norm() < 0.25 * (op.A(grey) - y).norm()
    torch.testing.assert_close(op.expansion_point(y[1:])[0], start[1], rtol=0, atol=1e-12)


def tinted(side: int = 10) -> Tensor:
    """Grey noise in three colours, whose channels are alike, shape (1, 3, side, side)."""
    return images(1, 1, side, side) * torch.tensor([1.0, 0.8, 0.6]).double().reshape(1, 3, 1, 1)


def test_an_image_without_noise_is_found_but_for_a_half_turn() -> None:
    x, op = tinted(), PhaseRetrieval()  # some search succeeds in each channel
    for found, accuracy in ((op.expansion_point(op.A(x)), 1e-4), (op.pinv(op.A(x)), 1e-8)):
        nearest = min((found, found.flip(-1, -2)), key=lambda v: (v - x).norm().item())
        torch.testing.assert_close(nearest, x, rtol=0, atol=accuracy)  # channels turned alike


def test_starts_are_numbered() -> None:
    x, op = tinted(), PhaseRetrieval()
    y = op.A(x) + 0.05 * images(1, 3, 20, 20, seed=4)
    first, second = op.expansion_point(y), op.expansion_point(y, 1)
    assert torch.equal(first, op.expansion_point(y, 0)) and (first - second).abs().max() > 1e-3


def objective(op: NonlinearOperator, u: Tensor, x: Tensor, y: Tensor, rho: float) -> Tensor:
    fit, change = (op.A(u) - y).square(), (u - x).square()
    return fit.sum((1, 2, 3)) + rho * change.sum((1, 2, 3))


@pytest.mark.parametrize("op", KINDS)
@pytest.mark.parametrize("rho", [0.0, 1.0, 10.0])
def test_each_step_of_the_proximal_map_lowers_its_objective_to_a_minimum(
    op: FourierMagnitude, rho: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = images(2, 3, 5, 7), op.A(images(2, 3, 5, 7, seed=1))
    first = reached = objective(op, x, x, y, rho)
    for steps in range(1, 6):
        monkeypatch.setattr(phase_retrieval, "STEPS", steps)
        before, reached = reached, objective(op, op.prox(x, y, rho), x, y, rho)
        assert (reached < first).all() and (reached <= before + 1e-12).all()
    if rho:
        monkeypatch.setattr(phase_retrieval, "STEPS", 300)
        u = op.prox(x, y, rho).requires_grad_()
        slope = torch.autograd.grad(objective(op, u, x, y, rho).sum(), u)[0]
        assert slope.abs().max() < 1e-6
        exact = op.A(x)
        torch.testing.assert_close(op.prox(x, exact, rho), x, rtol=0, atol=1e-12)


def test_the_proximal_map_of_one_pixel_is_that_of_its_magnitude() -> None:
    x, y = torch.full((1, 1, 1, 1), 0.7).double(), torch.full((1, 1, 1, 1), 0.4).double()
    assert PhaseRetrieval(1.0).prox(x, y, 0.5).item() == pytest.approx((0.4 + 0.5 * 0.7) / 1.5)
    assert PhaseRetrieval(1.0).prox(-x, y, 0.5).item() == pytest.approx(-(0.4 + 0.5 * 0.7) / 1.5)


def test_masks_recover_the_image() -> None:
    x = images(2, 3, 8, 9)
    op = CodedDiffraction(6)
    torch.testing.assert_close(op.pinv(op.A(x)), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("build", "message"), [
    (lambda: PhaseRetrieval(0.5), "oversampling must be at least 1 and finite, got 0.5"),
    (lambda: CodedDiffraction(0), "masks must be a whole number of at least 1, got 0"),
    (lambda: CodedDiffraction(True + 0.5), "masks must be a whole number"),
])
def test_settings_out_of_range_are_refused(build: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build()


@pytest.mark.parametrize(("op", "shape"), [
    (PhaseRetrieval(), (1, 1, 9, 8)), (PhaseRetrieval(), (1, 8, 8)),
    (PhaseRetrieval(4.0), (1, 1, 4, 1)), (CodedDiffraction(4), (1, 3, 8, 8)),
    (CodedDiffraction(4), (4, 8, 8)),
])
def test_measurements_of_no_image_are_refused(
    op: FourierMagnitude, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"must be \(batch"):
        op.image_shape(torch.Size(shape))
