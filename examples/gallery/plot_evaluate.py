"""
Compare methods on your own images
==================================

``genprior evaluate`` restores the same measurements with several methods and settings. It writes
a report in Markdown, CSV and JSON, and a contact sheet. This page takes three small images and
few steps; for conclusions take tens of images.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image
from skimage import data

from genprior.cli import main

WIDTHS = {"task": 29, "method": 17, "PSNR, dB": 16, "SSIM": 15, "gain, dB": 12}  # characters
folder = Path(tempfile.mkdtemp())
(folder / "test").mkdir()
for name in ("chelsea", "coffee", "astronaut"):
    crop = getattr(data, name)()[100:140, 148:188]
    Image.fromarray(crop).save(folder / "test" / f"{name}.png")

# %%
# In the shell, in one line: ``genprior evaluate test -o results --task ...``

main(["evaluate", str(folder / "test"), "-o", str(folder / "results"), "-q",
      "--task", "inpaint:random=0.5", "--task", "deblur:gaussian=1,noise=0.01",
      "--solver", "hqs:steps=3,hqs:steps=10", "--baseline", "tv,biharmonic"],
     standalone_mode=False)

# %%
# The report explains every number; this is a part of its table. A baseline takes part in the
# tasks that it is made for. ``gain`` is the difference to the best baseline, with its 95 %
# interval over the images.

report = (folder / "results" / "report.md").read_text()
rows = [[cell.strip() for cell in line.split("|")]
        for line in report.splitlines() if line.startswith("| ")]
shown = [rows[0].index(title) for title in WIDTHS]
for row in (rows[0], *rows[2:]):  # the second one is a rule
    print("  ".join(f"{row[k]:{width}}" for k, width in zip(shown, WIDTHS.values(), strict=True)))

# %%
# Three steps of ``hqs`` are enough for missing pixels here, but not for the blur. The contact
# sheet shows the images.

figure, ax = plt.subplots(figsize=(8, 8.4), layout="constrained")
ax.imshow(Image.open(folder / "results" / "contact.png"))
ax.set_axis_off()
plt.show()

# %%
# With ``--samples`` the report has the coverage of intervals, too, and ``reliability.png``.
