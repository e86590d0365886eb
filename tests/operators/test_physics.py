"""Restoration with a physics of deepinv or of a user as the operator."""

from pathlib import Path

import deepinv
import numpy as np
import pytest
import torch
from small import SHAPE, Shrink, batch
from torch import Tensor

from genprior import degrade, load_prior, make_solver, restore
from genprior.inverse.base import Solver
from genprior.operators.inpainting import Inpainting
from genprior.priors.ddpm import DDPM


@pytest.fixture(scope="module")
def prior(weights: Path) -> DDPM:
    return load_prior(weights)


def test_a_physics_of_deepinv_is_accepted(prior: DDPM) -> None:
    mask = (torch.rand(2, 1, 12, 20, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    physics = deepinv.physics.Inpainting(img_size=SHAPE, mask=mask)
    y = physics.A(batch())
    assert torch.equal(degrade(batch(), physics), y)
    options = {"prior": prior, "solver": "diffpir", "steps": 3, "noise_std": 0.02, "samples": 2}
    theirs = restore(y, physics, **options)
    ours = restore(y, Inpainting(mask > 0), **options)
    assert torch.allclose(theirs.samples, ours.samples, atol=1e-4)
    assert torch.allclose(theirs.misfit, ours.misfit, atol=1e-4)


def test_noiseless_measurements_without_a_hole_are_fitted(prior: DDPM) -> None:
    physics = deepinv.physics.CompressedSensing(m=400, img_size=SHAPE)
    y = physics.A(batch(1))
    assert restore(y, physics, prior, steps=1).misfit < 0.1 * y.square().mean().sqrt()


def test_measurements_that_are_not_images_keep_their_format() -> None:
    rays = deepinv.physics.Tomography(img_width=12, angles=5, normalize=False)
    pixels = np.full((12, 12), 200, np.uint8)
    exact = rays.A(torch.from_numpy(pixels)[None, None] / 255)
    assert exact.max() > 1.1
    torch.testing.assert_close(degrade(pixels, rays), exact)
    blur = deepinv.physics.Blur(torch.ones(1, 1, 3, 3) / 9, padding="circular")
    assert degrade(pixels, blur).dtype == np.uint8


@pytest.mark.parametrize(
    "solver", [make_solver("moment-matched", steps=3), make_solver("smc", steps=3, particles=4)]
)
def test_a_physics_may_have_parameters_per_image(prior: DDPM, solver: Solver) -> None:
    kernels = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    kernels /= kernels.sum(dim=(2, 3), keepdim=True)
    each = (kernels, *kernels[:, None])
    blur = [deepinv.physics.Blur(filter=kernel, padding="circular") for kernel in each]
    y = degrade(batch(3), blur[0], 0.05)
    options = {"prior": prior, "solver": solver, "noise_std": 0.05, "samples": 2}
    together = restore(y, blur[0], **options)
    for i in range(3):
        alone = restore(y[i : i + 1], blur[i + 1], index=i, **options)
        assert torch.allclose(alone.samples[0], together.samples[i], atol=1e-4)


@pytest.mark.parametrize("solver", ["diffpir", "pigdm", "hqs"])
def test_a_physics_whose_measurements_are_not_images_is_accepted(solver: str) -> None:
    x = batch(2)[..., :6, :6]
    physics = deepinv.physics.CompressedSensing(m=90, img_size=(3, 6, 6), device="cpu")
    y = 10 * degrade(x, physics, 0.001)
    assert y.shape == (2, 90) and y.max() > 3

    class Tenfold:
        def A(self, x: Tensor) -> Tensor:
            return 10 * physics.A(x)

        def A_adjoint(self, y: Tensor) -> Tensor:
            return 10 * physics.A_adjoint(y)

    result = restore(y, Tenfold(), Shrink(), solver, noise_std=0.01, steps=20)
    assert result.image.shape == x.shape
    # 90 of 108 directions are measured; the rest is known to 1/4 by the prior
    assert (result.image - x).square().mean() < x.sub(0.5).square().mean() / 2
    assert result.misfit.max() * 0.01 < 0.05 * y.std()
    with pytest.raises(ValueError, match="the measurement holds NaN"):
        restore(y / 0, Tenfold(), Shrink(), solver, noise_std=0.01)


@pytest.mark.parametrize("axes", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2])
def test_a_measurement_may_have_any_number_of_axes(axes: int, count: int) -> None:
    class Reshaped(deepinv.physics.LinearPhysics):
        def A(self, x: Tensor, **_: object) -> Tensor:
            return x.reshape(len(x), *[1] * (axes - 1), -1)

        def A_adjoint(self, y: Tensor, **_: object) -> Tensor:
            return y.reshape(len(y), 3, 6, 6)

    x = batch(count)[..., :6, :6]
    y = degrade(x, Reshaped(), 0.1)
    assert y.ndim == axes + 1
    result = restore(y, Reshaped(), prior=Shrink(), noise_std=0.1, samples=2, quantiles=(0.5,))
    assert result.samples.shape == (count, 2, 3, 6, 6)
    assert result.mean.shape == result.std.shape == result.quantiles[0.5].shape == x.shape
    torch.testing.assert_close(result.samples.mean(dim=1), result.mean)
