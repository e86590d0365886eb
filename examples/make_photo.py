"""Script that makes examples/photo.png and examples/hole.png from a photo of scikit-image.

The photo is `skimage.data.chelsea` (CC0). The hole is three brush strokes and a line of text. It
is stored in the alpha channel of photo.png (transparent = missing) and as a mask in hole.png
(white = missing).
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

STROKES = (
    [(20, 40), (120, 90), (240, 30), (400, 110)],
    [(60, 280), (150, 200), (300, 250), (430, 170)],
    [(350, 10), (330, 120), (390, 280)],
)


def main(folder: Path = Path(__file__).parent) -> float:
    """Writes the two files and returns the fraction of missing pixels."""
    photo = Image.fromarray(data.chelsea())
    hole = Image.new("L", photo.size, 0)
    draw = ImageDraw.Draw(hole)
    for stroke in STROKES:
        draw.line(stroke, fill=255, width=7, joint="curve")
    font = ImageFont.load_default(size=40)
    draw.text((70, 125), "DO NOT COPY", fill=255, font=font)
    hole = hole.point(lambda value: 255 if value >= 128 else 0)
    missing = np.asarray(hole) > 0
    pixels = np.asarray(photo) * ~missing[..., None]
    alpha = np.where(missing, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack((pixels, alpha))).save(folder / "photo.png", optimize=True)
    hole.save(folder / "hole.png", optimize=True)
    return float(missing.mean())


if __name__ == "__main__":
    print(f"missing: {main():.1%} (expected: 7.3%)")
