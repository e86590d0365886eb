import dataclasses

import numpy as np
import pytest
import torch
from oracles import Crooked, normals
from small import Shrink

from genprior.api.restoration import restore
from genprior.core.random_streams import Noise
from genprior.inverse.base import Restoration, misfit
from genprior.inverse.diffusion.diffpir import DiffPIR
from genprior.inverse.diffusion.dps import DPS
from genprior.inverse.diffusion.pigdm import PiGDM
from genprior.inverse.plug_and_play.hqs import HQS
from genprior.inverse.plug_and_play.posterior_mean import PosteriorMean
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.priors.base import Decoder

SOLVERS = [HQS(2), DPS(2), PiGDM(2), DiffPIR(2), PosteriorMean()]
NOISE = Noise(0, [0, 1])


def image() -> torch.Tensor:
    return 0.5 + 0.2 * normals(1, 2, 1, 4, 5)[0]


class OnlyDecodes(Decoder):
    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return tuple(image_shape)

    def decode(self, z: torch.Tensor, image_shape: torch.Size) -> torch.Tensor:
        return z


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_errors(solver: object) -> None:
    y, name = image(), type(solver).__name__
    with pytest.raises(TypeError, match=f"{name} needs a prior that is a denoiser, and OnlyDec"):
        solver(y, Denoising(), OnlyDecodes(), 0.1, NOISE)
    with pytest.raises(TypeError, match="and NoneType is not: choose another solver or prior"):
        solver(y, Denoising(), None, 0.1, NOISE)
    for bad in (float("nan"), float("inf")):
        broken = y.clone()
        broken[1, 0, 2, 2] = bad
        with pytest.raises(ValueError, match="measurement holds NaN or infinite numbers: repair"):
            solver(broken, Denoising(), Crooked(), 0.1, NOISE)
    for noise_std in (-0.1, float("nan"), float("inf"), torch.tensor([0.1, -1e-9])):
        with pytest.raises(ValueError, match=r"noise_std must be >= 0 and finite.*\[0, 1\]; got"):
            solver(y, Denoising(), Crooked(), noise_std, NOISE)
    with pytest.raises(ValueError, match="there is no measurement: the batch is empty"):
        solver(y[:0], Denoising(), Crooked(), 0.1, Noise(0, []))
    with pytest.raises(ValueError, match="each of the 2 images, got 3 numbers"):
        solver(y, Denoising(), Crooked(), torch.full((3,), 0.1), NOISE)


@pytest.mark.parametrize("solver", [DPS(2), PiGDM(2), DiffPIR(2)], ids=lambda s: type(s).__name__)
def test_there_must_be_a_random_stream_for_every_image(solver: object) -> None:
    with pytest.raises(ValueError, match="random streams for 3 images, but the batch has 2"):
        solver(image(), Denoising(), Crooked(), 0.1, Noise(0, [0, 1, 2]))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_a_noise_level_is_a_number_or_one_per_image(solver: object) -> None:
    def run(noise_std: object) -> torch.Tensor:
        return solver(image(), Denoising(), Crooked(), noise_std, Noise(0, [0, 1]))

    expected = run(0.1)
    for shape in ((), (1,), (2,)):
        found = run(torch.full(shape, 0.1, dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_settings_cannot_be_changed(solver: object) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        solver.steps = 3


def test_misfit_is_the_residual_in_noise_levels_over_what_was_measured() -> None:
    keep = torch.ones(2, 1, 2, 3)
    keep[0, 0, 0] = 0
    keep[1, 0, 1, 2] = 0
    op, x = Inpainting(keep), torch.zeros(2, 3, 2, 3, dtype=torch.float64)
    y = op.A(torch.full_like(x, 0.3))
    noise_std = torch.tensor([0.1, 0.0]).double()
    # the holes do not count; without noise it is the RMS itself
    torch.testing.assert_close(misfit(x, y, op, noise_std), torch.tensor([3.0, 0.3]).double())


def test_misfit_of_the_truth_is_1_within_the_error_of_its_estimate() -> None:
    x, noise = normals(2, 3, 3, 40, 50)
    noise_std = torch.tensor([0.01, 0.1, 1.0]).double()
    y = x + noise_std.reshape(-1, 1, 1, 1) * noise
    found = misfit(x, y, Denoising(), noise_std)
    assert (found - 1).abs().max() < 5 / (2 * 6000) ** 0.5


def test_misfit_of_several_samples_is_their_mean_one_and_not_that_of_their_mean() -> None:
    y = image().float()
    result = restore(y, Denoising(), Shrink(), "diffpir", 0.2, samples=4, steps=3)
    rms = (result.samples - y[:, None]).square().mean(dim=(2, 3, 4)).sqrt()
    torch.testing.assert_close(result.misfit, rms.mean(dim=1) / 0.2)
    assert (misfit(result.mean, y, Denoising(), torch.full((2,), 0.2)) < 0.9 * result.misfit).all()


def test_a_restoration_is_frozen() -> None:
    x = torch.zeros(1)
    result = Restoration(x, None, None, None, x, "hqs", "ddpm", 24, 0.1, 0.05, 0)
    assert result.warnings == ()
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'image'"):
        result.image = x


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
def test_a_restoration_is_printed_in_one_line_without_pixels(kind: type) -> None:
    y = torch.linspace(0, 1, 2 * 3 * 8 * 9).reshape(2, 3, 8, 9)
    given = y if kind is torch.Tensor else y[0].permute(1, 2, 0).numpy()
    result = restore(given, Denoising(), Shrink(), HQS(2), noise_std=0.1)
    shape = "2 x 3 x 8 x 9" if kind is torch.Tensor else "8 x 9 x 3"
    line = repr(result)
    assert f"Restoration(point estimate, {shape}, values 0.1" in line
    assert "solver HQS, prior Shrink, 2 evaluations, misfit " in line
    assert "\n" not in line and len(line) < 200
