"""
A prior trained in seconds, and used
====================================

``genprior train`` is one command. Here it learns gravel, on small crops of one image, with a small
network, for as long as a page may take. Real trainings take minutes to days; the commands that
trained the weights that ship are in ``benchmarks/recipes.md``.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from skimage import data

import genprior
from genprior.cli import main

folder = Path(tempfile.mkdtemp())
(folder / "photos").mkdir()
Image.fromarray(data.gravel()[:, :384]).save(folder / "photos" / "gravel.png")

# %%
# In the shell: ``genprior train ddpm photos -o run --steps 300 ...``

main(["train", "ddpm", str(folder / "photos"), "-o", str(folder / "run"), "--steps", "300",
      "--crop", "16", "--batch", "8", "--lr", "2e-3", "--warmup", "20", "--ema", "0.98",
      "--dtype", "float32", "--save-minutes", "0.03",
      "--set", "widths=[16,32]", "--set", "blocks=[1,1]"], standalone_mode=False)

# %%
# The run has a log, checkpoints, and a picture of both losses and samples over time.

figure, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
ax.imshow(Image.open(folder / "run" / "progress.png"))
ax.set_axis_off()
plt.show()

# %%
# The folder of the run is a prior, here for a part of the image that it has not seen.

photo = data.gravel()[100:164, 440:504].astype(np.float32) / 255
keep = np.random.default_rng(0).random((64, 64)) < 0.3
operator = genprior.make_operator("inpaint", keep=keep)
y = genprior.degrade(photo, operator)
trained = genprior.restore(y, operator, folder / "run")
genprior.show(trained, y, photo)
plt.show()
