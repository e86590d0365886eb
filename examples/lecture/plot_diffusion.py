"""
Diffusion: forward strip, and two ways back
===========================================

Noise is added until nothing is left of the image. A denoiser leads back: by DDPM, which adds new
noise at every step, or by DDIM, which adds none.
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import genprior
from genprior.priors.base import Denoiser


class Recording(Denoiser):
    """Denoiser that keeps what it is given and what it returns."""

    channels, size = 1, (28, 28)

    def __init__(self, prior: Denoiser) -> None:
        self.prior, self.seen = prior, []

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        x_hat = self.prior.denoise(x, sigma)
        self.seen.append((float(torch.as_tensor(sigma).flatten()[0]), x, x_hat))
        return x_hat


# %%
# The first row is the forward process of the last image, at the levels of the reverse one. Below,
# the first row of each pair is the state x of the reverse process, scaled into [0, 1], the second
# the image that the denoiser sees in it.

STEPS, SHOWN = 40, (0, 10, 16, 20, 24, 28, 32, 36, 39)
figure, axes = plt.subplots(5, len(SHOWN), figsize=(9.4, 5.8), layout="constrained")
for rows, (name, eta) in zip((axes[1:3], axes[3:]), (("DDPM", 1.0), ("DDIM", 0.0)), strict=True):
    recording = Recording(genprior.load_prior("ddpm:digits"))
    clean = genprior.sample(recording, 1, (28, 28), 1, steps=STEPS, eta=eta, seed=2)
    for column, step in zip(rows.T, SHOWN, strict=True):
        sigma, x, x_hat = recording.seen[step]
        scaled = 0.5 + (x - 0.5) / (1 + 4 * sigma)
        for ax, image in zip(column, (scaled, x_hat), strict=True):
            ax.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
        column[0].set_title(f"{name}, {sigma:.2g}", fontsize=8)
        if name == "DDPM":
            levels = [recording.seen[k][0] for k in reversed(SHOWN)]
noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
for ax, sigma in zip(axes[0], levels, strict=True):
    ax.imshow((0.5 + (clean + sigma * noise - 0.5) / (1 + 4 * sigma))[0, 0], cmap="gray",
              vmin=0, vmax=1)
    ax.set_title(f"forward, {sigma:.2g}", fontsize=8)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()
