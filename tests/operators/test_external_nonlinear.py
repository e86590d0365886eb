import copy

import deepinv
import pytest
import torch
from nonlinear import check_jacobian
from oracles import Dense
from torch import Tensor

from genprior import degrade, make_operator, restore
from genprior.api.factory import as_operator
from genprior.operators.external_nonlinear import ExternalNonlinear
from genprior.operators.phase_retrieval import PhaseRetrieval

SHAPE = (1, 6, 7)


def images(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)


def curved(x: Tensor) -> Tensor:
    return 40 * (x + x**2)


def test_a_function_of_torch_is_an_operator() -> None:
    op = make_operator("nonlinear", A=curved, image_shape=SHAPE)
    check_jacobian(op, images())
    y = op.A(images())
    op.check_shape(y.shape)
    torch.testing.assert_close(op.pinv(y), images(), rtol=0, atol=1e-3)
    result = restore(y.float(), op, Dense(std=0.3, dtype=torch.float32), "hqs")
    assert (result.image - images()).abs().max() < 0.01


def test_the_unit_of_the_measurement_does_not_matter() -> None:
    x, prior = images().float(), Dense(dtype=torch.float32)
    results = []
    for unit in (1.0, 2.0**12):
        op = make_operator("nonlinear", A=lambda x, u=unit: u * x**2, image_shape=SHAPE)
        y = degrade(x, op, 0.01 * unit)
        options = {"noise_std": 0.01 * unit, "samples": 2, "seed": 1}
        results.append(restore(y, op, prior, "dps", steps=5, **options))
    torch.testing.assert_close(results[0].image, results[1].image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[0].misfits, results[1].misfits, rtol=1e-3, atol=1e-3)


def test_a_nonlinear_physics_of_deepinv_is_accepted() -> None:
    class Modulus(deepinv.physics.Physics):
        def A(self, x: Tensor, **_: object) -> Tensor:
            return torch.fft.fft2(x, s=(12, 14), norm="ortho").abs()

    x = images().float()
    physics = Modulus(noise_model=deepinv.physics.GaussianNoise(0.01))
    op = as_operator(physics, SHAPE)
    assert isinstance(op, ExternalNonlinear)
    y = op.A(x)
    torch.testing.assert_close(y, PhaseRetrieval().A(x))
    result = restore(y, op, Dense(dtype=torch.float32), "daps", steps=3)
    assert result.noise_std == pytest.approx(0.01)
    assert result.image.shape == x.shape
    with pytest.raises(ValueError, match="Modulus does not tell the shape of its images: give"):
        restore(y, physics, Dense(dtype=torch.float32))


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature:UserWarning")
def test_phase_retrieval_of_deepinv() -> None:
    physics = deepinv.physics.RandomPhaseRetrieval(m=300, img_size=SHAPE)
    x = images().float()
    y = physics.A(x.to(torch.complex64)).real

    def measured(x: Tensor) -> Tensor:  # deepinv takes complex images only
        return physics.A(x.to(torch.complex64)).real

    op = make_operator("nonlinear", A=measured, image_shape=SHAPE)
    torch.testing.assert_close(op.A(x), y, rtol=1e-4, atol=1e-5)
    check_jacobian(op, x, rtol=1e-2, step=1e-2)
    assert op.image_shape(y.shape) == x.shape
    result = restore(y, op, Dense(std=0.3, dtype=torch.float32), "red-diff", steps=3)
    assert result.image.shape == x.shape


def test_complex_and_stacked_measurements_are_packed() -> None:
    def two(x: Tensor) -> list[Tensor]:
        return [torch.fft.fft2(x) * x.mean(), x.square().sum(dim=(1, 2, 3))[:, None]]

    op = ExternalNonlinear(two, SHAPE)
    y = op.A(images())
    assert y.shape == (2, 2 * 42 + 1)
    first, second = op.unpack(y)
    assert first.is_complex() and second.shape == (2, 1)
    check_jacobian(op, images())
    assert copy.deepcopy(op).A(images()).equal(y)


@pytest.mark.parametrize(("A", "shape", "error", "message"), [
    (3, SHAPE, TypeError, "must be a function of images, or an object with a method A, and int"),
    (lambda x: x.detach() ** 2, SHAPE, TypeError, "cannot be differentiated by torch"),
    (lambda x: x[:, :, :3] ** 2, SHAPE, ValueError, r"makes measurements of shape \(2, 1, 3, 7\)"),
    (lambda x: (x @ x), SHAPE, ValueError, "does not accept images of shape"),
    (lambda x: x**2 * torch.arange(1, 3).reshape(2, 1, 1, 1)[: len(x)], SHAPE, ValueError,
     "measures each image of a batch in another way"),
])
def test_what_does_not_fit_is_refused(
    A: object, shape: tuple, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        restore(torch.rand(2, *SHAPE), make_operator("nonlinear", A=A, image_shape=shape),
                Dense(dtype=torch.float32), "dps", noise_std=0.1)
