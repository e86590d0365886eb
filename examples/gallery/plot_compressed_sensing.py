"""
Compressed sensing: how few numbers are enough?
===============================================

Each measurement is a random combination of all pixels. A prior that knows digits needs far fewer
of them than there are pixels (Bora et al., 2017). This page compares a diffusion model and a
variational autoencoder with the pseudo-inverse, which uses no prior.
"""

import warnings

import deepinv
import matplotlib.pyplot as plt
import torch

import genprior
from genprior.core.errors import RestorationWarning

# A digit of 28 x 28 pixels, drawn from a prior that is not compared here.
x = genprior.sample("gan:digits", 3, (28, 28), seed=4)[2:]
PRIORS = {"ddpm:digits": 16, "vae:digits": None}  # steps of the default solver
COUNTS = (40, 80, 160)

# %%
# ``CompressedSensing`` of deepinv is the operator. Each prior takes its default solver.

warnings.simplefilter("ignore", RestorationWarning)  # of the misfit: see below
figure, axes = plt.subplots(3, 4, figsize=(7, 5.9), layout="constrained")
for row, count in zip(axes, COUNTS, strict=True):
    physics = deepinv.physics.CompressedSensing(
        count, (1, 28, 28), rng=torch.Generator().manual_seed(0),
        noise_model=deepinv.physics.GaussianNoise(0.01),
    )
    torch.manual_seed(0)  # deepinv draws its noise from the global generator
    y = physics(x)
    pictures = {"pseudo-inverse": physics.A_dagger(y)}
    for prior, steps in PRIORS.items():
        result = genprior.restore(y, physics, prior, steps=steps)
        pictures[f"{prior}, {result.solver}"] = result.image
    for ax, (caption, picture) in zip(row, (*pictures.items(), ("reference", x)), strict=True):
        psnr = -10 * (picture.clamp(0, 1) - x).square().mean().clamp(min=1e-9).log10().item()
        ax.imshow(picture[0, 0], cmap="gray", vmin=0, vmax=1)
        ax.set_title(caption if picture is x else f"{caption}\n{psnr:.1f} dB", fontsize=8)
        ax.set_xticks([])
        ax.set_yticks([])
    row[0].set_ylabel(f"{count} of 784", fontsize=9)
plt.show()

# %%
# 40 numbers are too few for ``ddpm``, but not for ``vae``: it has only a few latents to find.
# With more numbers ``ddpm`` wins, since the exact digit is not among the images of the
# autoencoder. Its misfit is then above 1, and a warning, hidden here, says so.
