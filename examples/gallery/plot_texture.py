"""
Textures from one image
=======================

A Gaussian texture (ADSN, Galerne, Gousseau and Morel 2011) is estimated from a single image: white
noise convolved with a kernel, with the mean and the covariance of the exemplar. It can be larger
than the exemplar. Random phase noise (RPN) keeps the modulus of the spectrum, and draws the phases
only. Both suit micro-textures; edges and objects are lost.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data

import genprior
from genprior.api.estimated_priors import draw_texture

figure, axes = plt.subplots(2, 3, figsize=(8, 5.6), layout="constrained")
for row, name in zip(axes, ("grass", "brick"), strict=True):
    image = torch.tensor(getattr(data, name)()[:128, :128] / 255, dtype=torch.float32)[None, None]
    prior = genprior.estimate_prior("texture", image)
    pictures = {
        f"exemplar: {name}, 128 x 128": image,
        "ADSN, 192 x 192": draw_texture(prior, (192, 192)),
        "RPN, 192 x 192": draw_texture(prior, (192, 192), "rpn"),
    }
    for ax, (caption, picture) in zip(row, pictures.items(), strict=True):
        ax.imshow(picture[0, 0], cmap="gray", vmin=0, vmax=1)
        ax.set_title(caption, fontsize=9)
        ax.set_axis_off()
plt.show()

# %%
# Above, grass is nearly a micro-texture. Below, bricks are not: the law has their colours and
# their correlations, but a Gaussian draws no edges. In the shell: ``genprior texture exemplar.png
# -o synthesis.png``, with ``--rpn`` for random phase noise.
