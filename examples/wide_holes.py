"""Wide holes in free photos: photo, hole, smooth fill, copied patches, copies with mended seams.

    python examples/wide_holes.py docs/holes.jpg

The photos are those that scikit-image ships (CC0 or public domain).
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from genprior import make_operator, restore
from genprior.inverse.baselines.exemplar import Exemplar
from genprior.operators.masks import box_hole

SIDE, HOLE, STEPS = 192, 64, 8
# Name, and the upper left corner of the crop.
PHOTOS = {"grass": (100, 100), "brick": (60, 60), "chelsea": (90, 60),
          "coffee": (200, 330), "astronaut": (300, 20)}


def crop(name: str) -> torch.Tensor:
    """Returns a crop of a photo, shape (1, 3, SIDE, SIDE)."""
    row, column = PHOTOS[name]
    photo = getattr(data, name)()[row : row + SIDE, column : column + SIDE]
    photo = np.repeat(photo[..., None], 3, axis=2) if photo.ndim == 2 else photo[..., :3]
    return torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255


def main() -> None:
    hole = box_hole((1, 1, SIDE, SIDE), HOLE, HOLE)
    operator = make_operator("inpaint", keep=~hole)
    rows = []
    for name in PHOTOS:
        x = crop(name)
        y = operator.A(x)
        smooth = restore(y, operator, steps=STEPS).image
        copies = restore(y, operator, None, solver=Exemplar()).image
        texture = restore(y, operator, steps=STEPS, fill="texture").image
        grey_hole = torch.where(hole, 0.5, x)
        rows.append(torch.cat([x, grey_hole, smooth, copies, texture], dim=3))
        print(name, flush=True)
    sheet = torch.cat(rows, dim=2)[0].clamp(0, 1).permute(1, 2, 0).mul(255).round().byte().numpy()
    Image.fromarray(sheet).save(Path(sys.argv[1]), quality=85)


if __name__ == "__main__":
    main()
