"""
Tomography and compressed sensing with a physics of deepinv
===========================================================

``restore`` takes any ``LinearPhysics`` of deepinv as its operator, and the noise level from it.
"""

import deepinv
import matplotlib.pyplot as plt
import torch
from skimage import data, transform

import genprior

phantom = transform.resize(data.shepp_logan_phantom(), (48, 48), anti_aliasing=True)
x = torch.tensor(phantom, dtype=torch.float32)[None, None].clamp(0, 1)
noise = deepinv.physics.GaussianNoise(0.02)

# %%
# Compressed sensing measures random combinations of the pixels, here one for every two. Tomography
# measures sums along rays, here from 20 directions.

generator = torch.Generator().manual_seed(0)
PHYSICS = {
    "compressed sensing": deepinv.physics.CompressedSensing(
        48 * 48 // 2, (1, 48, 48), rng=generator, noise_model=noise
    ),
    "tomography, 20 angles": deepinv.physics.Tomography(
        20, 48, normalize=True, noise_model=noise
    ),
}
figure, axes = plt.subplots(2, 3, figsize=(6.6, 4.6), layout="constrained")
for row, (name, physics) in zip(axes, PHYSICS.items(), strict=True):
    torch.manual_seed(0)  # deepinv draws its noise from the global generator
    y = physics(x)
    result = genprior.restore(y, physics, steps=20)
    pictures = {
        name: physics.A_dagger(y), f"{result.solver}, {result.prior}": result.image, "reference": x
    }
    for ax, (caption, picture) in zip(row, pictures.items(), strict=True):
        psnr = -10 * (picture.clamp(0, 1) - x).square().mean().log10().item()
        ax.imshow(picture[0, 0].clamp(0, 1), cmap="gray")
        ax.set_title(caption if picture is x else f"{caption}\n{psnr:.1f} dB", fontsize=9)
        ax.set_axis_off()
plt.show()

# %%
# On the left the pseudo-inverse without a prior. The prior has learned from photos, not from
# phantoms; it helps since phantoms, too, are flat with edges.
