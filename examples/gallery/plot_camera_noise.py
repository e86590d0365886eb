"""
Noise of a camera
=================

By default noise is white: every pixel has its own, of one level. Noise of a camera is not:
bright pixels have more of it (photons), and the interpolation of the colour mosaic passes it on
to neighbours. A denoiser for white noise takes such noise for a part of the image.
"""

import warnings

import matplotlib.pyplot as plt
import torch
from skimage import data
from torch.nn.functional import conv2d

import genprior

# %%
# A simulated camera: each pixel of the sensor measures one colour with photon noise, and the
# other two colours are interpolated (bilinear demosaicing).

draw = torch.Generator().manual_seed(0)
x = torch.tensor(data.coffee()[100:228, 180:308]).permute(2, 0, 1)[None] / 255
mosaic = torch.zeros(1, 3, 128, 128)
mosaic[:, 0, ::2, ::2] = mosaic[:, 2, 1::2, 1::2] = 1
mosaic[:, 1, ::2, 1::2] = mosaic[:, 1, 1::2, ::2] = 1
sensor = mosaic * (x + (0.015 * x).sqrt() * torch.randn(x.shape, generator=draw))
tent = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(3, 1, 3, 3)
sums = [conv2d(image, tent, padding=1, groups=3) for image in (sensor, mosaic)]
y = (sums[0] / sums[1]).clamp(0, 1)
level = (y - x).square().mean().sqrt().item()

# %%
# With ``noise_std="auto"``, which the shell's ``genprior denoise`` takes by default, the law of
# the noise is estimated from the flattest patches of the image. For comparison, the same noise
# level as a number: then the noise is taken as white.

denoise = genprior.make_operator("denoise")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the misfit of white noise is not 1, and a warning says so
    white = genprior.restore(y, denoise, noise_std=level)
found = genprior.restore(y, denoise, noise_std="auto")
print(found)

pictures = {"camera": y, f"as white noise of {level:.3f}": white.image,
            "as the noise that is found": found.image, "reference": x}
figure, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained")
for ax, (caption, picture) in zip(axes, pictures.items(), strict=True):
    psnr = -10 * (picture.clamp(0, 1) - x).square().mean().clamp(min=1e-9).log10().item()
    ax.imshow(picture[0].permute(1, 2, 0).clamp(0, 1), interpolation="nearest")
    ax.set_title(caption if picture is x else f"{caption}\n{psnr:.1f} dB", fontsize=9)
    ax.set_axis_off()
plt.show()
