"""
The minimax loss of the generator, and the better one
=====================================================

Goodfellow et al. (2014) give two losses for the generator: (1) min log(1 - D(G(z))), the minimax
game, and (2) max log D(G(z)). Both have the same fixed point. While the discriminator recognises
the generated images, D(G(z)) is near 0, and the gradient of (1) vanishes there.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import genprior
from genprior.cli import main

figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
logit = torch.linspace(-8, 4, 200)
ax.plot(torch.sigmoid(logit), torch.sigmoid(logit), label="(1) minimax")
ax.plot(torch.sigmoid(logit), 1 - torch.sigmoid(logit), label="(2) non-saturating")
ax.set(xlabel="D(G(z))", ylabel="size of the gradient to the logit")
ax.legend()
plt.show()

# %%
# Both on the same data: images of 16 x 16 pixels with one bright bar at one of eight places. The
# data have eight modes, so that one can count which of them a generator makes.

rng = np.random.default_rng(0)
place = rng.integers(8, size=2000)
images = np.full((2000, 16, 16), 40, np.uint8)
for image, k in zip(images, place, strict=True):
    image[:, 2 * k : 2 * k + 2] = 220
folder = Path(tempfile.mkdtemp())
noisy = np.clip(images + rng.normal(0, 8, images.shape), 0, 255)
np.save(folder / "bars.npy", noisy.astype(np.uint8))

RUNS = {
    "(1) minimax, Adam": ["--set", "loss=minimax"],
    "(2) non-saturating, Adam": [],
    "(2) non-saturating, SGD": ["--optimizer", "sgd", "--lr", "0.05"],
}
figure, axes = plt.subplots(3, 10, figsize=(9, 3.4), layout="constrained")
for row, (name, options) in zip(axes, RUNS.items(), strict=True):
    run = folder / name.replace(" ", "")
    main(["train", "gan", str(folder / "bars.npy"), "-o", str(run), "--steps", "200", "--batch",
          "32", "--crop", "16", "--lr", "2e-3", "--warmup", "1", "--ema", "0.9", "--dtype",
          "float32", "--no-flip", "--no-turn", "--no-scale", "--no-preview", "-q", "--set",
          "latent=8", "--set", "widths=[8,16]", "--set", "size=[16,16]", *options],
         standalone_mode=False)
    drawn = genprior.sample(run, 400)
    bars = drawn[:, 0].mean(dim=1).reshape(400, 8, 2).mean(dim=2).argmax(dim=1)
    share = torch.bincount(bars, minlength=8) / 400
    for ax, image in zip(row, drawn, strict=False):
        ax.imshow(image[0], cmap="gray", vmin=0, vmax=1)
        ax.set_axis_off()
    row[0].set_title(f"{name}: {(share > 0.02).sum()} of 8 modes", fontsize=8, loc="left")
plt.show()
