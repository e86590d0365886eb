"""
Planar and radial flows on densities in the plane
=================================================

Rezende and Mohamed (2015). ``genprior train planar points.npy`` trains a flow on an array of
points (N, 2); ``--set kind=radial`` takes radial layers, ``--set depth=8`` eight of them.
"""

import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import genprior
from genprior.cli import main

folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
angle = 2 * math.pi * rng.random(5000)
ring = np.stack((np.cos(angle), np.sin(angle)), 1) * 1.5 + 0.15 * rng.standard_normal((5000, 2))
side = np.where(rng.random((5000, 1)) < 0.5, -1.2, 1.2) * np.array([[1.0, 0.5]])
two = side + 0.35 * rng.standard_normal((5000, 2))

# %%
# For each data set: the points, and the densities exp(log p) after a short training.

axis = torch.linspace(-2.6, 2.6, 100)
grid = torch.cartesian_prod(axis, axis)[:, None, None]
figure, axes = plt.subplots(2, 3, figsize=(8, 5.6), layout="constrained")
for row, (name, points) in zip(axes, {"two": two, "ring": ring}.items(), strict=True):
    np.save(folder / f"{name}.npy", points)
    row[0].plot(*points[:1500].T, ".", markersize=2)
    row[0].set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", title="data")
    for ax, kind in zip(row[1:], ("planar", "radial"), strict=True):
        run = folder / f"{name}-{kind}"
        main(["train", "planar", str(folder / f"{name}.npy"), "-o", str(run), "--steps", "200",
              "--batch", "128", "--lr", "0.03", "--warmup", "20", "--ema", "0.95", "--dtype",
              "float32", "--set", f"kind={kind}", "--set", "depth=8", "-q"],
             standalone_mode=False)
        with torch.no_grad():
            flow = genprior.load_prior(run)
            density = flow.log_prob(grid).exp().reshape(100, 100).T
            bits = -flow.log_prob(torch.tensor(points).float()[:, None, None]).mean().item()
        ax.imshow(density, origin="lower", extent=(-2.6, 2.6, -2.6, 2.6), cmap="magma")
        ax.set_title(f"{kind}, {bits:.2f} nats", fontsize=9)
plt.show()
