"""
Your own operator in 30 lines
=============================

``restore`` takes any object with ``A`` and ``A_adjoint``. This one is the mosaic of colour filters
in front of a camera's sensor (Bayer): each pixel measures one of the three colours.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data
from torch import Tensor

import genprior


class Bayer:
    """Mosaic of red, green and blue pixels: images (B, 3, H, W) to measurements (B, 1, H, W)."""

    def __init__(self, height: int, width: int) -> None:
        self.pattern = torch.zeros(3, height, width)
        self.pattern[0, ::2, ::2] = 1
        self.pattern[1, ::2, 1::2] = self.pattern[1, 1::2, ::2] = 1
        self.pattern[2, 1::2, 1::2] = 1

    def A(self, x: Tensor) -> Tensor:
        return (self.pattern * x).sum(dim=1, keepdim=True)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.pattern * y


# %%
# The adjoint must be right: <A x, y> = <x, A^T y> for all x and y.

bayer = Bayer(48, 48)
u, v = torch.rand(1, 3, 48, 48), torch.rand(1, 1, 48, 48)
torch.testing.assert_close((bayer.A(u) * v).sum(), (u * bayer.A_adjoint(v)).sum())

# %%
# That is all. Every solver and every prior now work with it.

photo = data.astronaut()[:48, 200:248]
x = torch.tensor(photo).permute(2, 0, 1)[None] / 255
y = bayer.A(x) + 0.02 * torch.randn(1, 1, 48, 48, generator=torch.Generator().manual_seed(0))
result = genprior.restore(y, bayer, noise_std=0.02, steps=16)
genprior.show(result, y, x)
plt.show()
