"""Physics in other libraries, units and dtypes, with complex or several measurements."""

from typing import Any

import deepinv
import pytest
import torch
from small import Shrink, batch
from torch import Tensor

from genprior import degrade, restore
from genprior.core.errors import RestorationWarning
from genprior.priors.pca import PCA

SMALL = (3, 6, 6)
FEW_STEPS = {"csgm": 100}  # ten starts of 1000 steps would take most of the time of this file
M = torch.randn(90, 108, generator=torch.Generator().manual_seed(3)).double() / 108**0.5


class TorchMatrix:
    """A matrix in torch, float32."""

    def __init__(self, scale: float = 1.0) -> None:
        self.M = scale * M.float()

    def A(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.M.T

    def A_adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.M).reshape(len(y), *SMALL)


class NumpyMatrix:
    """The same matrix in NumPy, float64, hidden from autograd."""

    def __init__(self) -> None:
        self.held = [M.numpy()]

    def A(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float64
        return torch.from_numpy(x.detach().flatten(1).numpy() @ self.held[0].T)

    def A_adjoint(self, y: Tensor) -> Tensor:
        assert y.dtype == torch.float64
        return torch.from_numpy(y.detach().numpy() @ self.held[0]).reshape(len(y), *SMALL)


class Fourier:
    """Some Fourier coefficients, complex."""

    def A(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(x, norm="ortho")[..., :3]

    def A_adjoint(self, y: Tensor) -> Tensor:
        full = torch.cat([y, torch.zeros_like(y)], dim=-1)
        return torch.fft.ifft2(full, norm="ortho").real


class Pair(deepinv.physics.StackedLinearPhysics):
    """Two measurements of an image: a blur and a downsampled image."""

    def __init__(self) -> None:
        blur = deepinv.physics.Blur(torch.ones(1, 1, 3, 3) / 9, padding="circular")
        half = deepinv.physics.Downsampling(img_size=SMALL, factor=2, filter="bicubic")
        super().__init__([blur, half])


def flattened(y: Any) -> Tensor:
    parts = [y] if isinstance(y, Tensor) else list(y)
    real = [torch.view_as_real(part) if part.is_complex() else part for part in parts]
    return torch.cat([part.flatten(1) for part in real], dim=1)


class Flat(TorchMatrix):
    """The matrix of any physics, with real measurements in one vector."""

    def __init__(self, physics: Any) -> None:
        self.M = flattened(physics.A(torch.eye(108).reshape(108, *SMALL))).T


def pixels(count: int = 2) -> Tensor:
    return batch(count)[..., :6, :6].contiguous()


def gaussian() -> PCA:
    side = torch.eye(108).reshape(108, *SMALL)[:100]
    return PCA(torch.full(SMALL, 0.5), side, torch.full((100,), 1 / 12), 0.05)


@pytest.mark.parametrize("solver", ["map", "csgm", "langevin", "image-langevin", "gaussian"])
def test_a_physics_need_not_be_written_in_torch(solver: str) -> None:
    y = TorchMatrix().A(pixels())
    steps = FEW_STEPS.get(solver)
    options = {"prior": gaussian(), "solver": solver, "noise_std": 0.05, "steps": steps}
    expected = restore(y, TorchMatrix(), **options)
    result = restore(y, NumpyMatrix(), **options)
    torch.testing.assert_close(result.image, expected.image, rtol=0, atol=1e-3)
    assert result.misfit.max() < 2


@pytest.mark.parametrize(
    "solver", ["hqs", "moment-matched", "dps", "red-diff", "csgm", "map", "langevin"]
)
def test_the_unit_of_a_measurement_does_not_matter(solver: str) -> None:
    y = degrade(pixels(), TorchMatrix(), 0.02)
    prior = gaussian() if solver in ("map", "langevin", "csgm") else Shrink()
    options = {"prior": prior, "solver": solver, "steps": FEW_STEPS.get(solver)}
    expected = restore(y, TorchMatrix(), noise_std=0.02, **options)
    for scale in (2.0**-12, 2.0**10):
        result = restore(scale * y, TorchMatrix(scale), noise_std=scale * 0.02, **options)
        torch.testing.assert_close(result.image, expected.image, rtol=0, atol=1e-6)
        torch.testing.assert_close(result.misfit, expected.misfit, rtol=1e-5, atol=0)
        assert result.noise_std == scale * 0.02


def test_the_misfit_without_noise_is_in_the_unit_of_the_measurement() -> None:
    y = TorchMatrix().A(pixels())
    for scale in (1.0, 2.0**-12, 2.0**10):
        result = restore(scale * y, TorchMatrix(scale), Shrink(), "diffpir", steps=2)
        rms = (TorchMatrix(scale).A(result.image) - scale * y).square().mean(dim=1).sqrt()
        torch.testing.assert_close(result.misfit, rms, rtol=1e-3, atol=0)


def test_units_that_differ_by_image() -> None:
    class Weights(TorchMatrix):
        def A(self, x: Tensor) -> Tensor:
            return super().A(x) * torch.tensor([1e-3, 1.0, 500.0])[:, None]

        def A_adjoint(self, y: Tensor) -> Tensor:
            return super().A_adjoint(y * torch.tensor([1e-3, 1.0, 500.0])[:, None])

    x = pixels(3)
    y = Weights().A(x)
    together = restore(y, Weights(), Shrink(), noise_std=[2e-5, 0.02, 10.0], samples=2)
    for i, scale in enumerate((1e-3, 1.0, 500.0)):
        alone = restore(
            y[i : i + 1], TorchMatrix(scale), Shrink(), noise_std=0.02 * scale, samples=2, index=i
        )
        torch.testing.assert_close(together.samples[i], alone.samples[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("physics", [Fourier(), Pair()])
def test_complex_numbers_and_several_measurements(physics: object) -> None:
    x = pixels()
    exact, y = physics.A(x), degrade(x, physics, 0.05)
    assert 0.035 < (flattened(y) - flattened(exact)).std() < 0.065
    assert type(y) is type(exact)
    result = restore(y, physics, Shrink(), noise_std=0.05, samples=4)
    assert result.image.shape == x.shape and result.samples.shape == (2, 4, *SMALL)
    assert result.std.dtype == result.image.dtype == torch.float32
    assert not result.warnings

    flat = restore(flattened(y), Flat(physics), Shrink(), noise_std=0.05, samples=4)
    torch.testing.assert_close(result.samples, flat.samples, rtol=0, atol=1e-4)


def test_an_image_with_two_channels_is_measured() -> None:
    mask = (pixels(1)[:, :1] > 0.5).float()
    physics = deepinv.physics.MRI(mask=mask, img_size=(2, 6, 6))
    x = 9 * pixels()[:, :2]
    torch.testing.assert_close(degrade(x, physics), physics.A(x))


def test_a_single_measurement_of_any_scale() -> None:
    rays = deepinv.physics.Tomography(img_width=6, angles=12, normalize=False)
    y = 20 * rays.A(pixels(1)[:, :1])
    assert y.max() > 7

    class Scaled:
        def A(self, x: Tensor) -> Tensor:
            return 20 * rays.A(x)

        def A_adjoint(self, y: Tensor) -> Tensor:
            return 20 * rays.A_adjoint(y)

    whole = restore(y, Scaled(), Shrink(), noise_std=0.2, samples=2)
    one = restore(y[0], Scaled(), Shrink(), noise_std=0.2, samples=2)
    assert torch.equal(one.image, whole.image[0]) and torch.equal(one.std, whole.std[0])
    assert torch.equal(one.samples, whole.samples[0])
    with pytest.raises(ValueError, match="not an image as a float tensor"):
        restore(y[0, 0].numpy(), Scaled(), Shrink(), noise_std=0.2)


def test_results_do_not_require_gradients_of_a_physics() -> None:
    class Learned(torch.nn.Module, TorchMatrix):
        def __init__(self) -> None:
            super().__init__()
            self.M = torch.nn.Parameter(M.float())

    y = degrade(pixels(), Learned(), 0.05)
    assert not y.requires_grad
    result = restore(y, Learned(), gaussian(), noise_std=0.05, samples=2)
    assert not (result.image.requires_grad or result.misfit.requires_grad)


def test_an_unused_noise_model_of_a_physics_gives_a_warning() -> None:
    noisy = deepinv.physics.BlurFFT(
        img_size=SMALL, filter=torch.ones(1, 1, 3, 3) / 9,
        noise_model=deepinv.physics.GaussianNoise(0.1),
    )
    y = noisy(pixels())
    with pytest.warns(RestorationWarning, match="noise_std is 0, and the GaussianNoise of the ph"):
        restore(y, noisy, Shrink(), noise_std=0)
    assert "GaussianNoise" not in "".join(restore(y, noisy, Shrink(), noise_std=0.1).warnings)
    noisy.noise_model = deepinv.physics.PoissonNoise(0.1)
    with pytest.warns(RestorationWarning, match="noise_std is 0, and the PoissonNoise of the phy"):
        assert restore(y, noisy, Shrink()).noise_std == 0


def test_a_small_misfit_of_few_measurements_gives_no_warning() -> None:
    physics = deepinv.physics.CompressedSensing(m=10, img_size=SMALL)
    y = degrade(pixels(), physics, 0.02)
    result = restore(y, physics, Shrink(), noise_std=0.02)
    assert result.misfit.max() < 0.3 and not result.warnings
    several = restore(y, physics, Shrink(), noise_std=0.02, samples=8)
    assert not several.warnings
