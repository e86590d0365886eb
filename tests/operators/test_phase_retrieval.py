import numpy as np
import pytest
import torch
from nonlinear import check_jacobian
from torch import Tensor

from genprior.core.errors import SettingError
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
