"""The noise level of a physics of deepinv, and warnings of restorations as Python warnings."""

import copy
import warnings
from typing import Any

import deepinv
import pytest
import torch
from small import SHAPE, Shrink, batch
from torch import Tensor

from genprior import degrade, make_operator, restore
from genprior.core.errors import RestorationWarning

BOX = torch.ones(1, 1, 3, 3) / 9


def noisy(level: Any = 0.05) -> deepinv.physics.LinearPhysics:
    model = deepinv.physics.GaussianNoise(level)
    return deepinv.physics.BlurFFT(img_size=SHAPE, filter=BOX, noise_model=model)


@pytest.mark.parametrize("level", [0.05, torch.tensor([0.02, 0.2])])
def test_the_level_of_the_physics_is_the_default(level: float | Tensor) -> None:
    physics = noisy(level)
    y = physics.A(batch()) + 0.05 * torch.randn(
        (2, *SHAPE), generator=torch.Generator().manual_seed(0)
    )
    for operator in (physics, make_operator("external", physics=physics)):
        result = restore(y, operator, Shrink())
        expected = restore(y, physics, Shrink(), noise_std=level)
        assert torch.equal(result.image, expected.image)
        torch.testing.assert_close(torch.as_tensor(result.noise_std), torch.as_tensor(level))
    assert not any("not used" in warning for warning in result.warnings)


def test_a_measurement_is_made_with_the_noise_of_the_physics() -> None:
    physics, x = noisy(0.1), batch()
    noise = degrade(x, physics) - physics.A(x)
    assert noise.std() == pytest.approx(0.1, rel=0.2)
    assert torch.equal(degrade(x, physics, 0.0), degrade(x, physics, [0.0, 0.0]))
    torch.testing.assert_close(degrade(x, physics, 0.0), physics.A(x))


def test_a_physics_without_noise_and_an_operator_have_level_0() -> None:
    physics = deepinv.physics.BlurFFT(img_size=SHAPE, filter=BOX)
    assert restore(physics.A(batch()), physics, Shrink()).noise_std == 0
    operator = make_operator("superres", factor=2)
    assert restore(operator.A(batch()), operator, Shrink()).noise_std == 0
    assert torch.equal(degrade(batch(), operator), operator.A(batch()))


class Fourier(deepinv.physics.LinearPhysics):
    """All Fourier coefficients, complex."""

    def A(self, x: Tensor, **_: Any) -> Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        return torch.fft.ifft2(y, norm="ortho").real


def test_each_part_of_a_complex_number_has_half_of_the_variance() -> None:
    physics = Fourier(noise_model=deepinv.physics.GaussianNoise(0.2))
    x = torch.full((1, 3, 64, 64), 0.5)
    theirs = (physics(x) - physics.A(x)).real.std()
    ours = (degrade(x, physics) - physics.A(x)).real.std()
    assert ours == pytest.approx(theirs.item(), rel=0.03)
    assert restore(physics(x), physics, Shrink()).noise_std == pytest.approx(0.2 / 2**0.5)


@pytest.mark.parametrize("second, level", [(0.05, 0.05), (0.1, 0.0)])
def test_several_measurements_may_have_one_level(second: float, level: float) -> None:
    parts = [
        deepinv.physics.Blur(BOX, padding="circular",
                             noise_model=deepinv.physics.GaussianNoise(sigma))
        for sigma in (0.05, second)
    ]
    physics = deepinv.physics.StackedLinearPhysics(parts)
    result = restore(physics.A(batch()), physics, Shrink())
    assert result.noise_std == pytest.approx(level)
    assert any("GaussianNoise of the physics is not used" in w for w in result.warnings) == (
        not level
    )


def test_a_warning_is_one_of_python_at_the_line_of_the_caller() -> None:
    y = degrade(batch(), make_operator("denoise"), 0.1)
    with pytest.warns(RestorationWarning) as caught:
        result = restore(
            y, make_operator("denoise"), Shrink(), "diffpir", noise_std=0.001, samples=2,
            quantiles=(0.05,), steps=2,
        )
    assert len(result.warnings) >= 2
    assert [str(warning.message) for warning in caught] == list(result.warnings)
    assert {warning.filename for warning in caught} == {__file__}


def test_a_restoration_without_doubts_does_not_warn() -> None:
    operator = make_operator("deblur", kernel=BOX[0, 0])
    y = degrade(batch(), operator, 0.05)
    with warnings.catch_warnings(action="error", category=RestorationWarning):
        restore(y, operator, Shrink(), noise_std=0.05, samples=2)


def test_the_physics_is_not_changed() -> None:
    physics = noisy()
    before = copy.deepcopy(physics.state_dict())
    degrade(batch(), physics), restore(batch(), physics, Shrink())
    assert all(torch.equal(value, before[name]) for name, value in physics.state_dict().items())
