"""
JPEG: what the file says about the image
========================================

A JPEG file does not hold noisy pixels. It holds rounded coefficients of a cosine transform of
blocks of 8 x 8 pixels: each true coefficient lies in a known interval, its cell. ``genprior
dejpeg`` and the operator ``jpeg`` look for a probable image inside these cells.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from skimage import data

import genprior

photo = Image.fromarray(data.astronaut()[16:112, 176:272])
reference = np.asarray(photo) / 255

# %%
# Pillow writes the file, at three qualities. In the shell: ``genprior dejpeg photo.jpg --ext
# png`` reads the tables from the file; here the quality is given.

figure, axes = plt.subplots(2, 4, figsize=(9, 4.9), layout="constrained")
for column, quality in zip(axes.T, (5, 10, 25), strict=False):
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    y = np.asarray(Image.open(file)) / 255
    operator = genprior.make_operator("jpeg", quality=quality)
    result = genprior.restore(y, operator)
    for ax, image, name in zip(column, (y, result.image), ("decoded", result.solver), strict=True):
        psnr = -10 * np.log10(np.mean((image - reference) ** 2))
        ax.imshow(image.clip(0, 1))
        ax.set_title(f"quality {quality}, {name}\n{psnr:.1f} dB", fontsize=9)
axes[0, 3].imshow(reference)
axes[0, 3].set_title("reference", fontsize=9)
difference = 0.5 + 4 * (result.image - y)
axes[1, 3].imshow(difference.clip(0, 1))
axes[1, 3].set_title("change at quality 25, x 4", fontsize=9)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# Blocks, rings and colour blotches go; what the rounding removed, such as the texture of the
# hair, does not come back. The last image shows where the restoration of quality 25 differs from
# the decoded file.
