"""Pipelines of diffusers as priors, recognised without diffusers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small import HOLE, batch
from torch import Tensor, nn

from genprior import make_operator, restore
from genprior.core.errors import SettingError
from genprior.operators.inpainting import Inpainting
from genprior.priors.external.diffusers_unet import from_pipeline

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
LEVELS = torch.cumprod(1 - BETAS, 0).float()
VARIANCE = 0.25  # of a pixel in [-1, 1]


def of_diffusers(name: str, *bases: type, **members: Any) -> type:
    return type(name, bases, {"__module__": f"diffusers.models.{name.lower()}", **members})


class Exact(nn.Module):
    """The exact network for independent pixels N(0, 1/4) in [-1, 1]; it interpolates steps."""

    def __init__(self, prediction: str, channels: int = 3) -> None:
        super().__init__()
        self.prediction = prediction
        self.config = SimpleNamespace(
            in_channels=channels, block_out_channels=(8, 8, 8), sample_size=None
        )
        self.dtype = torch.float32
        self.steps: list[Tensor] = []

    def forward(self, sample: Tensor, timestep: Tensor, class_labels: None) -> SimpleNamespace:
        assert sample.shape[-2] % 4 == sample.shape[-1] % 4 == 0
        assert sample.shape[1] == self.config.in_channels
        self.steps.append(timestep)
        log_s = ((1 - LEVELS) / LEVELS).log() / 2
        low = timestep.floor().long().clamp(max=998)
        s = (log_s[low] + (timestep - low) * (log_s[low + 1] - log_s[low])).exp()
        a = (1 / (1 + s**2)).reshape(-1, 1, 1, 1)
        clean = a.sqrt() * VARIANCE / (a * VARIANCE + 1 - a) * sample
        noise = (sample - a.sqrt() * clean) / (1 - a).sqrt()
        answers = {"epsilon": noise, "sample": clean,
                   "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean}
        return SimpleNamespace(sample=answers[self.prediction])


def pipeline(prediction: str = "epsilon", channels: int = 3, name: str = "DDPMPipeline") -> Any:
    made = of_diffusers(name, of_diffusers("DiffusionPipeline"))()
    made.unet = Exact(prediction, channels)
    made.scheduler = SimpleNamespace(
        alphas_cumprod=LEVELS, config=SimpleNamespace(prediction_type=prediction)
    )
    return made


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("sigma", [0.02, torch.tensor([0.1, 3.0])])
def test_the_denoiser_is_the_posterior_mean(prediction: str, sigma: float | Tensor) -> None:
    x = batch()[..., :11, :18]
    found = from_pipeline(pipeline(prediction)).denoise(x, sigma)
    shrink = (VARIANCE / (VARIANCE + 4 * torch.as_tensor(sigma) ** 2)).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(found, 0.5 + shrink * (x - 0.5), rtol=0, atol=2e-5)


def test_levels_beyond_those_of_the_scheduler_get_its_first_and_last_step() -> None:
    made = pipeline()
    prior = from_pipeline(made)
    for sigma in (1e-4, 1e4):
        prior.denoise(batch(), sigma)
    assert [step.tolist() for step in made.unet.steps] == [[0, 0], [999, 999]]


@pytest.mark.parametrize("name", ["DDPMPipeline", "DDIMPipeline"])
def test_a_pipeline_is_a_prior(name: str) -> None:
    op = Inpainting(~HOLE)
    result = restore(op.A(batch()), op, pipeline(name=name), noise_std=0.1)
    assert result.prior == name and result.image.isfinite().all()
    grey = restore(batch()[:, :1], make_operator("denoise"), pipeline(), noise_std=0.1)
    expected = 0.5 + VARIANCE / (VARIANCE + 0.04) * (batch()[:, :1] - 0.5)
    torch.testing.assert_close(grey.image, expected, rtol=0, atol=1e-4)


def test_what_cannot_be_wrapped_says_what_to_give() -> None:
    unet = of_diffusers("UNet2DModel", nn.Module)()
    latent = of_diffusers("StableDiffusionPipeline", of_diffusers("DiffusionPipeline"))()
    for prior, message in (
        (unet, r"UNet2DModel of diffusers is not a prior: .* diffusers.DDPMPipeline\(network"),
        (latent, "StableDiffusionPipeline of diffusers is not a prior: it works on latents"),
    ):
        with pytest.raises(SettingError, match=message):
            restore(batch(), make_operator("denoise"), prior, noise_std=0.1)
    for wrong in (pipeline("flow"), pipeline(channels=4)):
        with pytest.raises(ValueError, match="must have 1 or 3 channels and predict one of epsil"):
            from_pipeline(wrong)
    flow = pipeline()
    flow.scheduler = SimpleNamespace(config=flow.scheduler.config)
    with pytest.raises(ValueError, match="this one has a SimpleNamespace: save it with save_pre"):
        from_pipeline(flow)
