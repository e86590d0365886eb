"""
MRI: complex images from some lines of the Fourier transform
============================================================

A magnetic resonance scanner measures the Fourier transform of a complex image, line by line.
Fewer lines make the scan shorter, and leave the image open: the prior closes the gap. The
operator is a physics of deepinv; two channels are the real and the imaginary part of an image.
"""

import deepinv
import matplotlib.pyplot as plt
import torch
from skimage import data, transform

import genprior

# %%
# A phantom of 64 x 64 pixels with a smooth phase, as coils cause it.

size = 64
magnitude = torch.tensor(
    transform.resize(data.shepp_logan_phantom(), (size, size), anti_aliasing=True)
).float().clamp(0, 1)
row, column = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
image = torch.polar(magnitude, row + 0.5 * column**2)
x = torch.view_as_real(image).permute(2, 0, 1)[None].contiguous()  # (1, 2, H, W)

# %%
# The lines of low frequency are measured, and a third of the others, chosen at random: regular
# gaps would repeat the image as sharp ghosts, which no prior can tell from edges.

lines = (torch.rand(size, generator=torch.Generator().manual_seed(1)) < 1 / 3).float()
lines[size // 2 - 5 : size // 2 + 5] = 1
physics = deepinv.physics.MRI(
    mask=lines.expand(size, size).contiguous(), img_size=(2, size, size),
    noise_model=deepinv.physics.GaussianNoise(0.01),
)
torch.manual_seed(0)  # deepinv draws its noise from the global generator
y = physics(x)
print(f"{lines.mean():.0%} of the lines are measured")

# %%
# ``ddpm`` has learned from photos, and denoises real and imaginary part as two grey images.

result = genprior.restore(y, physics, steps=16)


def as_complex(parts: torch.Tensor) -> torch.Tensor:
    """Returns the complex image (H, W) of real and imaginary part (1, 2, H, W)."""
    return torch.view_as_complex(parts[0].movedim(0, -1).contiguous())


found = {"zero-filled": physics.A_dagger(y), f"{result.solver}, {result.prior}": result.image}
figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), layout="constrained")
axes[0, 0].imshow(physics.mask[0, 0], cmap="gray")
axes[0, 0].set_title("measured coefficients", fontsize=9)
for column, (caption, parts) in zip(axes.T[1:], (*found.items(), ("reference", x)), strict=True):
    shown = as_complex(parts)
    error = (shown - image).abs().square().mean()
    psnr = "" if parts is x else f"\n{-10 * error.log10().item():.1f} dB"
    column[0].imshow(shown.abs(), cmap="gray", vmin=0, vmax=1)
    column[0].set_title(f"{caption}, magnitude{psnr}", fontsize=9)
    column[1].imshow(torch.where(shown.abs() > 0.05, shown.angle(), torch.nan), cmap="twilight",
                     vmin=-torch.pi, vmax=torch.pi)
    column[1].set_title("phase, where there is signal", fontsize=9)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# Without a prior the missing lines are zero, and edges spread in the direction that was not
# measured.
