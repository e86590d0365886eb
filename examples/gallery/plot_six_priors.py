"""
Six priors on one hole
======================

The operator stays, the prior changes, and with it the default solver.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, metrics

import genprior

photo = data.coffee()[120:168, 260:308].astype(np.float32) / 255
hole = np.zeros(photo.shape[:2], bool)
hole[16:28, 12:36] = True
operator = genprior.make_operator("inpaint", mask=hole)
y = genprior.degrade(photo, operator)

# %%
# ``ddpm`` is a diffusion model, ``vae``, ``hvae`` and ``gan`` decode latents, ``glow`` is a
# density, and ``texture`` is a Gaussian law estimated from the known part of the image itself.

texture = genprior.estimate_prior("texture", y, keep=~hole)
NAMES = ("ddpm", "vae", "hvae", "gan", "glow")
PRIORS = {**{name: name for name in NAMES}, "texture": texture}

figure, axes = plt.subplots(1, 8, figsize=(13, 2.3), layout="constrained")
axes[0].imshow(y)
axes[0].set_title("measurement", fontsize=9)
for ax, (name, prior) in zip(axes[1:], PRIORS.items(), strict=False):
    result = genprior.restore(y, operator, prior)
    psnr = metrics.peak_signal_noise_ratio(photo[hole], result.image[hole], data_range=1)
    ax.imshow(np.clip(result.image, 0, 1), interpolation="nearest")
    ax.set_title(f"{name}, {result.solver}\n{psnr:.1f} dB in the hole", fontsize=9)
axes[-1].imshow(photo)
axes[-1].set_title("reference", fontsize=9)
for ax in axes:
    ax.set_axis_off()
plt.show()
