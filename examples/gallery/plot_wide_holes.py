"""
Wide holes: an estimate, and texture
====================================

The middle of a wide hole is not determined by its surroundings. The mean of all possibilities,
which has the highest PSNR, is a blur there. ``fill="texture"`` takes the fine scales from
patches of the same image, and the tones from the solver. It is the default in wide holes, where
patches fit.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import genprior

IMAGES = {
    "gravel": data.gravel()[:112, :112] / 255,
    "astronaut": data.astronaut()[20:132, 170:282] / 255,
}
hole = np.zeros((112, 112), bool)
hole[36:76, 36:76] = True
operator = genprior.make_operator("inpaint", mask=hole)

# %%
# In the shell: ``genprior inpaint photo.png --mask hole.png --fill texture``.

figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
for row, (name, photo) in zip(axes, IMAGES.items(), strict=True):
    y = genprior.degrade(photo, operator)
    pictures = {"measurement": y}
    for fill in ("smooth", "texture"):
        pictures[f"fill={fill}"] = genprior.restore(y, operator, fill=fill).image
    pictures[f"reference: {name}"] = photo
    for ax, (caption, picture) in zip(row, pictures.items(), strict=True):
        error = np.mean((picture - photo)[hole] ** 2)
        psnr = f", {-10 * np.log10(error):.1f} dB" if caption.startswith("fill") else ""
        ax.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1)
        ax.set_title(caption + psnr, fontsize=9)
        ax.set_axis_off()
plt.show()

# %%
# The dB are those in the hole. Gravel holds the same material elsewhere, so the texture looks
# right, although its PSNR is lower: it is one possibility, and not the one that was there.
# Patches know materials, not objects: below, hair goes on over the forehead.
