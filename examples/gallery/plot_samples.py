"""
Samples and standard deviation
==============================

One image is a point estimate. Samples of the posterior tell in addition what the measurement left
open: where they differ, it did not say.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data

import genprior

photo = data.chelsea()[100:140, 130:170].astype(np.float32) / 255

# %%
# Two of three pixels are missing. Samples by ``diffpir``, which is quick. Their std is rough; that
# of ``moment-matched``, the default, can be trusted and takes longer (:doc:`plot_calibration`).

keep = np.random.default_rng(0).random(photo.shape[:2]) < 1 / 3
operator = genprior.make_operator("inpaint", keep=keep)
y = genprior.degrade(photo, operator, noise_std=0.02)
result = genprior.restore(y, operator, noise_std=0.02, samples=3, solver="diffpir", steps=25)
genprior.show(result, y, photo)
plt.show()

# %%
# The restoration shows itself at the end of a notebook cell: image, std map and a line of facts.

result  # noqa: B018

# %%
# In a wide hole the point estimate is a blur, since it is the mean of all that is possible. Each
# sample by ``diffpir`` is one possibility. None of them is the truth.

hole = np.zeros(photo.shape[:2], bool)
hole[12:28, 12:28] = True
operator = genprior.make_operator("inpaint", mask=hole)
y = genprior.degrade(photo, operator)
point = genprior.restore(y, operator, steps=12)
samples = genprior.restore(y, operator, solver="diffpir", steps=15, samples=4)

pictures = [y, point.image, *samples.samples, photo]
captions = ["measurement", "point estimate", *(f"sample {k}" for k in range(4)), "reference"]
figure, axes = plt.subplots(1, len(pictures), figsize=(12, 2.1), layout="constrained")
for ax, picture, caption in zip(axes, pictures, captions, strict=True):
    ax.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    ax.set_title(caption, fontsize=9)
    ax.set_axis_off()
plt.show()
