"""Denoiser from the network and the scheduler of an unconditional pipeline of diffusers.

With u = 2 x - 1, s = 2 sigma and a = 1 / (1 + s^2), the network gets sqrt(a) u and the step t
where the scheduler has alphas_cumprod = a. Steps in between are interpolated. Its output F is

    epsilon       D(u) = u - s F
    sample        D(u) = F
    v_prediction  D(u) = a u - sqrt(1 - a) F

References:
    Denoising Diffusion Probabilistic Models, Ho et al., 2020.
    Progressive Distillation for Fast Sampling of Diffusion Models, Salimans and Ho, 2022 (v).
"""

from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.linalg import per_image
from genprior.priors.base import Denoiser
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

PREDICTIONS = ("epsilon", "sample", "v_prediction")


class DiffusionPipeline(nn.Module, Denoiser):
    """Denoiser of a `DDPMPipeline` or `DDIMPipeline` of diffusers, for images of any size.

    Beyond the first and the last step of the scheduler, the network gets that step.

    Arguments:
        pipeline: An object with a `unet` and a `scheduler`.

    Raises:
        ValueError: The scheduler predicts something else, or the images are neither grey nor
            RGB.
    """

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.network, scheduler = pipeline.unet, pipeline.scheduler
        config = self.network.config
        self.prediction = getattr(scheduler.config, "prediction_type", "epsilon")
        self.channels = config.in_channels
        if self.prediction not in PREDICTIONS or self.channels not in (1, 3):
            raise ValueError(
                f"a pipeline of diffusers must have 1 or 3 channels and predict one of "
                f"{', '.join(PREDICTIONS)}; this one has {self.channels} channels and predicts "
                f"{self.prediction}"
            )
        self.multiple = 2 ** (len(config.block_out_channels) - 1)
        a = scheduler.alphas_cumprod.detach().double().cpu()
        self.register_buffer("levels", ((1 - a) / a).log().float() / 2, persistent=False)
        self.training = self.network.training

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        padded, crop = pad_to_multiple(to_network(x, self.channels), self.multiple)
        u, s = 2 * padded - 1, 2 * per_image(sigma, x)
        a = 1 / (1 + s**2)
        F = self.network(a.sqrt() * u, self._step(s.flatten()), return_dict=False)[0]
        if self.prediction == "epsilon":
            u_hat = u - s * F
        else:
            u_hat = F if self.prediction == "sample" else a * u - (1 - a).sqrt() * F
        return from_network((u_hat + 1)[crop] / 2, x.shape[1])

    def _step(self, s: Tensor) -> Tensor:
        """Returns the steps of levels s, not whole, shape (B,)."""
        level = s.log().clamp(self.levels[0], self.levels[-1])
        after = torch.searchsorted(self.levels, level).clamp(1, len(self.levels) - 1)
        low, high = self.levels[after - 1], self.levels[after]
        return (after - 1) + (level - low) / (high - low)
