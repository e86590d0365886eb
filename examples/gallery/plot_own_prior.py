"""
Your own prior in 60 lines
==========================

A prior is whatever a solver asks for. The smallest is a function ``f(x, sigma)`` that returns
E[x0 given x0 + sigma n = x]. This one assumes that pixels are Gaussian around the mean of their
neighbourhood (the Wiener filter of Lee, 1980).
"""

import matplotlib.pyplot as plt
import torch
from skimage import data
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

import genprior
from genprior.priors.base import Denoiser


def local_mean(x: Tensor, radius: int = 1) -> Tensor:
    """Returns the mean over the neighbourhood of each pixel."""
    side = 2 * radius + 1
    return avg_pool2d(pad(x, (radius,) * 4, mode="reflect"), side, stride=1)


def wiener(x: Tensor, sigma: float | Tensor) -> Tensor:
    """Returns m + v / (v + sigma^2) (x - m), with the local mean m and variance v."""
    noise = torch.as_tensor(sigma).reshape(-1, 1, 1, 1) ** 2
    m = local_mean(x)
    v = (local_mean(x.square()) - m.square() - noise).clamp(min=0)
    return m + v / (v + noise) * (x - m)


# %%
# A function is enough for ``restore``. It fills in missing pixels, although nobody wrote a line
# about inpainting:

photo = data.camera()[190:254, 220:284]
x = torch.tensor(photo)[None, None] / 255
keep = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) < 0.5
operator = genprior.make_operator("inpaint", keep=keep)
y = genprior.degrade(x, operator, noise_std=0.02)
result = genprior.restore(y, operator, wiener, noise_std=0.02)
genprior.show(result, y, x)
plt.show()

# %%
# A class tells more: that a pixel depends on its neighbours only, so that large images are
# processed in tiles and windows, and that mirrored images are as probable as others.


class Wiener(Denoiser):
    """Local Wiener filter as a prior."""

    receptive_radius = 2
    symmetries = range(8)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return wiener(x, sigma)


large = genprior.restore(y, operator, Wiener(), noise_std=0.02)
print(f"function: misfit {result.misfit.item():.2f}; class: misfit {large.misfit.item():.2f}")
