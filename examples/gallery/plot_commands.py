"""
The four restoring commands
===========================

``inpaint``, ``denoise``, ``deblur`` and ``superres`` on a crop of a photo. With ``--degrade`` the
input is a clean image: genprior measures it first, and tells the PSNR of the restoration.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image
from skimage import data

from genprior.cli import main

folder = Path(tempfile.mkdtemp())
Image.fromarray(data.chelsea()[90:154, 120:184]).save(folder / "photo.png")

# %%
# These are the lines that one types in a shell, after ``genprior``. ``--save panel`` writes
# measurement, restoration and clean image side by side; fewer ``--steps`` are quicker and less
# exact.

COMMANDS = (
    "inpaint photo.png --mask random=0.5",
    "denoise photo.png --noise 25/255",
    "deblur photo.png --gaussian 1.6 --noise 0.01 --boundary reflect",
    "superres photo.png --factor 2 --noise 0.01",
)

figure, axes = plt.subplots(4, 1, figsize=(6, 8.8), layout="constrained")
for line, ax in zip(COMMANDS, axes, strict=True):
    command, photo, *options = line.split()
    steps = [] if command == "denoise" else ["--steps", "12"]
    main([command, str(folder / photo), "-o", str(folder / f"{command}.png"), *options, *steps,
          "--degrade", "--save", "panel"], standalone_mode=False)
    ax.imshow(Image.open(folder / f"{command}.panel.png"), interpolation="nearest")
    ax.set_title(f"genprior {line}", fontsize=9, family="monospace")
    ax.set_axis_off()
plt.show()
