"""
In pipelines: a transform, and functions on numpy arrays
========================================================
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data, restoration
from torchvision.transforms import v2

import genprior

# %%
# ``genprior.transforms.Restore`` is a transform like those of torchvision. It takes a Pillow
# image, a tensor or an array, and returns the same type. The prior is loaded once.

torch.manual_seed(0)  # torchvision draws its noise from the global generator
photo = v2.functional.to_image(data.coffee()[60:108, 180:228])
noisy = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.GaussianNoise(sigma=0.1)])(photo)
clean = v2.Compose([
    genprior.transforms.Restore("denoise", noise_std=0.1),
    v2.ToDtype(torch.uint8, scale=True),
])(torch.as_tensor(noisy))

# %%
# ``genprior.restoration`` has the conventions of ``skimage.restoration``: arrays in any axis
# order, ``channel_axis``, floats out.

image = data.camera()[90:138, 200:248] / 255
mask = np.zeros(image.shape, bool)
mask[::3, ::2] = mask[20:24, 10:40] = True
y = np.where(mask, 0, image)
ours = genprior.restoration.inpaint(y, mask, steps=12)
theirs = restoration.inpaint_biharmonic(y, mask)

pictures = {
    "noisy": np.asarray(noisy.clip(0, 1).permute(1, 2, 0)),
    "transforms.Restore": clean.permute(1, 2, 0),
    "missing pixels": y,
    f"biharmonic, {np.abs(theirs - image)[mask].mean():.4f}": theirs,
    f"restoration.inpaint, {np.abs(ours - image)[mask].mean():.4f}": ours,
}
figure, axes = plt.subplots(1, 5, figsize=(11, 2.5), layout="constrained")
for ax, (caption, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
    ax.set_title(caption, fontsize=9)
    ax.set_axis_off()
plt.show()

# %%
# The numbers are mean absolute errors of the missing pixels. ``progress=True`` shows a bar, in a
# notebook as a widget if ipywidgets is installed.
