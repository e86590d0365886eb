"""
Truncated latents: quality against diversity
============================================

BigGAN (Brock et al. 2019) draws latents from a normal distribution truncated to [-t, t]. The lower
t is, the more typical and the less varied are the images. In the shell: ``genprior sample --prior
gan:digits --truncation 0.5 --count 8 -o digits.png``.
"""

import matplotlib.pyplot as plt
import torch

import genprior

BOUNDS = (0.1, 0.5, 1.0, 1.5, 2.0, None)

figure, axes = plt.subplots(len(BOUNDS), 10, figsize=(8, 5.2), layout="constrained")
for row, bound in zip(axes, BOUNDS, strict=True):
    for ax, image in zip(row, genprior.sample("gan:digits", 10, truncation=bound), strict=True):
        ax.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        ax.set_axis_off()
    row[0].set_title(f"t = {bound}" if bound else "not truncated", fontsize=8, loc="left")
plt.show()

# %%
# At t = 0.1 hardly anything is left: latents so close to 0 were never drawn in the training, as
# the norm of 32 normal numbers is near 5.7.
#
# The curve. Diversity is the mean distance between two images. Quality is how well another model
# of digits, ``vae:digits``, reproduces the images: it fails on strokes that no digit has.

vae = genprior.load_prior("vae:digits")
diversity, error = [], []
for bound in BOUNDS:
    x = genprior.sample("gan:digits", 80, truncation=bound, seed=1)
    with torch.no_grad():
        seen = vae.decode(vae.encode(x), x.shape)
    diversity.append(torch.cdist(x.flatten(1), x.flatten(1)).mean().item())
    error.append((x - seen).square().mean().sqrt().item())
figure, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
ax.plot(diversity, error, marker="o")
for bound, position in zip(BOUNDS, zip(diversity, error, strict=True), strict=True):
    ax.annotate(f"  {bound or 'not truncated'}", position, fontsize=8)
ax.set(xlabel="diversity: mean distance of two images", ylabel="RMS that vae:digits misses")
plt.show()
