"""Training of a DDPM by diffusers, on one core in one to two minutes, as a prior of genprior.

    python examples/train_diffusers.py IMAGES -o digits-ddpm
    genprior inpaint digit.png --mask hole.png --prior digits-ddpm

IMAGES is what `genprior train` takes, such as `t10k-images-idx3-ubyte.gz` of MNIST or a folder of
grey images of one size. Training is that of the tutorials of diffusers: a `UNet2DModel` predicts
the noise that a `DDPMScheduler` adds. The folder of the pipeline is the prior.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import mse_loss

from genprior.io.datasets import open_source


def train(images: torch.Tensor, folder: Path, steps: int = 400, batch: int = 16) -> None:
    """Trains a DDPM on grey images and writes its pipeline.

    Arguments:
        images: Images in [0, 1], shape (N, 1, H, W).
        folder: The folder to write.
        steps: Steps of the optimiser.
        batch: Images per step.
    """
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=tuple(images.shape[2:]), in_channels=1, out_channels=1, layers_per_block=1,
        block_out_channels=(16, 32), norm_num_groups=8, add_attention=False,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        x = 2 * images[torch.randint(len(images), (batch,))] - 1
        noise = torch.randn_like(x)
        t = torch.randint(len(scheduler.betas), (batch,))
        loss = mse_loss(unet(scheduler.add_noise(x, noise, t), t).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    DDPMPipeline(unet.eval(), scheduler).save_pretrained(folder)


def main(source: str, folder: Path, count: int, steps: int) -> None:
    """Trains on the first images of a source."""
    found = open_source(source, channels=1)
    arrays = [np.asarray(found[i]) for i in range(min(count, len(found)))]
    train(torch.as_tensor(np.stack(arrays))[:, None] / 255, folder, steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", metavar="IMAGES")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=9000, help="images to train on, the first")
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    main(given.source, given.output, given.count, given.steps)
