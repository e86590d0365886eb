"""
A checkpoint of diffusers as a prior
====================================

``--prior FOLDER`` and ``load_prior`` take a folder of diffusers with a ``UNet2DModel`` as it is.
So that this page needs no download, a tiny network is trained here first by diffusers' own means.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from skimage import data
from torch.nn.functional import mse_loss

import genprior

photo = torch.tensor(data.camera()).float()[None, None] / 255
unet = UNet2DModel(
    sample_size=16, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=8,
    block_out_channels=(16, 32), down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"),
)
scheduler = DDPMScheduler(num_train_timesteps=1000)

# %%
# Ninety steps on random crops: enough for the page, not for good images.

draw = torch.Generator().manual_seed(0)
crops = photo.unfold(2, 16, 8).unfold(3, 16, 8).reshape(-1, 1, 16, 16) * 2 - 1
optimizer = torch.optim.Adam(unet.parameters(), lr=3e-3)
for _ in range(90):
    x = crops[torch.randint(len(crops), (16,), generator=draw)]
    noise = torch.randn(x.shape, generator=draw)
    t = torch.randint(1000, (16,), generator=draw)
    loss = mse_loss(unet(scheduler.add_noise(x, noise, t), t).sample, noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

folder = Path(tempfile.mkdtemp())
DDPMPipeline(unet.eval(), scheduler).save_pretrained(folder)

# %%
# From here on the folder could be any one that was downloaded. ``genprior priors info FOLDER``
# tells what was found in it.

prior = genprior.load_prior(folder)
x = photo[..., 80:128, 200:248]
operator = genprior.make_operator("denoise")
y = genprior.degrade(x, operator, noise_std=0.15)
result = genprior.restore(y, operator, prior, noise_std=0.15)
genprior.show(result, y, x)
plt.show()
