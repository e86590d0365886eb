"""Wide holes in photos: photo, hole, smooth fill, texture.

    python examples/wide_holes.py wide-holes.jpg [PHOTO ...]

Without PHOTO these are crops of photos that scikit-image ships (CC0 or public domain).
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from genprior import make_operator, restore
from genprior.operators.masks import box_hole

SIDE, HOLE, STEPS = 176, 64, 3
SHOWN = slice(24, -24)
# Upper left corners of the crops of each photo.
PHOTOS = {
    "grass": [(100, 100)],
    "brick": [(60, 60)],
    "gravel": [(150, 150)],
    "chelsea": [(90, 60), (20, 120)],
    "astronaut": [(300, 20), (10, 130)],
    "camera": [(200, 60), (10, 300)],
    "coffee": [(200, 330)],
    "page": [(8, 100)],
    "coins": [(60, 100)],
}


def crops() -> list[np.ndarray]:
    """Returns crops of the photos of scikit-image, (SIDE, SIDE, 3) in [0, 1]."""
    found = []
    for name, places in PHOTOS.items():
        photo = getattr(data, name)()
        photo = np.repeat(photo[..., None], 3, axis=2) if photo.ndim == 2 else photo[..., :3]
        for row, column in places:
            found.append(photo[row : row + SIDE, column : column + SIDE] / 255)
    return found


def centre(file: str) -> np.ndarray:
    """Returns the centre of a photo, (SIDE, SIDE, 3) in [0, 1]."""
    photo = np.asarray(Image.open(file).convert("RGB")) / 255
    row, column = ((length - SIDE) // 2 for length in photo.shape[:2])
    return photo[row : row + SIDE, column : column + SIDE]


def main() -> None:
    photos = [centre(file) for file in sys.argv[2:]] or crops()
    hole = box_hole((1, 1, SIDE, SIDE), HOLE, HOLE)
    operator = make_operator("inpaint", keep=~hole)
    rows = []
    for number, photo in enumerate(photos, 1):
        x = torch.from_numpy(photo.copy()).float().permute(2, 0, 1)[None]
        y = operator.A(x)
        smooth = restore(y, operator, steps=STEPS, fill="smooth").image
        texture = restore(y, operator, steps=STEPS, fill="texture").image
        images = [x, torch.where(hole, 0.5, x), smooth, texture]
        rows.append(torch.cat([image[..., SHOWN, SHOWN] for image in images], dim=3))
        print(f"{number} of {len(photos)}", flush=True)
    if len(rows) % 2 == 0:  # two columns
        half = len(rows) // 2
        rows = [torch.cat(pair, dim=3) for pair in zip(rows[:half], rows[half:], strict=True)]
    sheet = torch.cat(rows, dim=2)[0].clamp(0, 1).permute(1, 2, 0).mul(255).round().byte().numpy()
    Image.fromarray(sheet).save(Path(sys.argv[1]), quality=75)


if __name__ == "__main__":
    main()
