"""Diffusion prior: a network that removes noise of every level.

With u = 2 x - 1 and s = 2 sigma the denoiser is

    D(u, s) = c_skip(s) u + c_out(s) F(c_in(s) u, ln(sigma) / 4)

and F is trained to have unit-variance targets. The three objectives are three triples:

    eps  c_skip = 1                      c_out = s                        c_in = (1 + s^2)^-1/2
    v    c_skip = 1 / (1 + s^2)          c_out = s (1 + s^2)^-1/2         c_in = (1 + s^2)^-1/2
    edm  c_skip = sd^2 / (s^2 + sd^2)    c_out = s sd (s^2 + sd^2)^-1/2   c_in = (s^2 + sd^2)^-1/2

References:
    Denoising Diffusion Probabilistic Models, Ho et al., 2020 (eps).
    Progressive Distillation for Fast Sampling of Diffusion Models, Salimans and Ho, 2022 (v).
    Elucidating the Design Space of Diffusion-Based Generative Models, Karras et al., 2022 (edm).

Differs from the authors' code:
    1. The network is conditioned on ln(sigma), not on a step index, so any level can be asked.
    2. "eps" and "v" predict minus the noise and minus v: the sign is the network's.
    3. The levels of "edm" are spread for restoration: more of them are small.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genprior.diffusion import ddpm_sigmas
from genprior.nets.padding import pad_to_multiple
from genprior.nets.unet import UNet
from genprior.noise import Noise
from genprior.priors.base import Denoiser, Trainable, per_image

Objective = Literal["eps", "v", "edm"]
SIGMA_DATA = 0.5
SIGMA_RANGE = (0.002, 50.0)
GREY_SHARE = 0.15
WIDE_SHARE = 0.1


class DDPM(nn.Module, Denoiser, Trainable):
    """Diffusion prior of images of any size.

    A prior for colour also denoises grey images (B, 1, H, W): a share of its training
    images are grey.

    Arguments:
        channels: Image channels of the network, 3 or 1.
        widths: Feature channels per level of the UNet.
        blocks: Residual blocks per level.
        objective: What the network predicts: "edm", "eps" or "v".
        schedule: Training levels of "eps" and "v": "linear" or "cosine", T = 1000.
        noise_mean: Mean of ln(sigma) of the training levels of "edm".
        noise_std: Standard deviation of the same.

    Raises:
        ValueError: An objective or a schedule that does not exist.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (48, 96, 160, 224),
        blocks: Sequence[int] = (2, 2, 2, 4),
        objective: Objective = "edm",
        schedule: Literal["linear", "cosine"] = "linear",
        noise_mean: float = -2.7,
        noise_std: float = 1.1,
    ) -> None:
        super().__init__()
        if objective not in ("eps", "v", "edm"):
            raise ValueError(f"objective must be 'eps', 'v' or 'edm', got {objective!r}")
        self.channels = channels
        self.objective = objective
        self._config = {
            "channels": channels,
            "widths": list(widths),
            "blocks": list(blocks),
            "objective": objective,
            "schedule": schedule,
            "noise_mean": noise_mean,
            "noise_std": noise_std,
        }
        # a tenth faster than the contiguous format on a CPU, more on a GPU
        self.network = UNet(channels, widths, blocks).to(memory_format=torch.channels_last)
        self.reach, self.stride = self.network.reach, self.network.multiple
        levels = torch.as_tensor(ddpm_sigmas(schedule), dtype=torch.float32)
        self.register_buffer("levels", levels, persistent=False)

    @property
    def config(self) -> Mapping[str, Any]:
        return self._config

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"network": self.network.parameters()}

    def preconditioning(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in) at level s, in units of [-1, 1]; all of the shape of s."""
        if self.objective == "eps":
            return torch.ones_like(s), s, (1 + s**2).rsqrt()
        sd = SIGMA_DATA if self.objective == "edm" else 1.0
        total = s**2 + sd**2
        return sd**2 / total, s * sd * total.rsqrt(), total.rsqrt()

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        if x.shape[1] == self.channels:
            return self._denoise(x, sigma)
        if x.shape[1] == 1:
            grey = self._denoise(x.expand(-1, self.channels, -1, -1), sigma)
            return grey.mean(dim=1, keepdim=True)
        raise ValueError(
            f"this prior was trained on images of {self.channels} channel(s) and takes "
            f"those or grey ones, got {x.shape[1]} channels: convert the image"
        )

    def _denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        sigma = per_image(sigma, x)
        c_skip, c_out, c_in = self.preconditioning(2 * sigma)
        u, crop = pad_to_multiple(2 * x - 1, self.network.multiple)
        c_noise = sigma.clamp(*SIGMA_RANGE).log().flatten() / 4
        f = self.network(c_in * u, c_noise)
        return (c_skip * u + c_out * f)[crop].add(1).div(2)

    def training_levels(self, x: Tensor, noise: Noise) -> Tensor:
        """Random noise levels of the objective for images x, in image units, shape (B,)."""
        a, b = noise.uniform(x.new_empty(len(x), 2)).unbind(dim=1)
        if self.objective != "edm":
            return self.levels.to(x)[(len(self.levels) * a).long()]
        z = noise.normal(a)
        narrow = (self._config["noise_mean"] + self._config["noise_std"] * z).exp()
        low, high = map(math.log, SIGMA_RANGE)
        wide = (low + (high - low) * a).exp()
        return torch.where(b < WIDE_SHARE, wide, narrow).clamp(*SIGMA_RANGE)

    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        sigma = self.training_levels(x, noise)
        grey = noise.uniform(x[:, :1, :1, :1]) < GREY_SHARE
        n = noise.normal(x)
        x = torch.where(grey, x.mean(dim=1, keepdim=True), x)
        n = torch.where(grey, n[:, :1], n)

        s = 2 * per_image(sigma, x)
        c_skip, c_out, c_in = self.preconditioning(s)
        u = 2 * x - 1
        u_noisy = u + s * n
        target = (u - c_skip * u_noisy) / c_out
        f = self.network(c_in * u_noisy, sigma.log() / 4)
        return {"network": (f.float() - target).square().mean()}
