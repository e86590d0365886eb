"""Removal of JPEG artefacts from test photos, in dB over the decoded photo.

    python benchmarks/jpeg.py TEST [--crop 96] [--steps 8] [--qualities 10 20 40]

The centre crop of each photo is compressed by Pillow (libjpeg, 4:2:0) and restored from the file
by the operator that `genprior dejpeg` uses. PSNR is that of the result rounded to 8 bits, over
all channels. Writes `results/jpeg.md` and `.json`; a stopped run continues where it was.
"""

import argparse
import io
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from genprior import load_prior, restore
from genprior.api.tasks import decompressing
from genprior.core.metrics import psnr
from genprior.inverse.plug_and_play.dithered_mean import DitheredMean
from genprior.io.images import ImageFile, parse_image, read_image
from genprior.priors.base import Denoiser

RESULTS = Path(__file__).parent / "results"
SAMPLING = "4:2:0"


def compressed(x: Tensor, quality: int) -> ImageFile:
    """Returns an image (1, 3, H, W) in [0, 1] as it is read from a JPEG file."""
    from PIL import Image

    levels = x[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=quality, subsampling=SAMPLING)
    return parse_image(file.getvalue(), Path("photo.jpg"))


def measure(x: Tensor, quality: int, prior: Denoiser, steps: int) -> dict[str, float]:
    """Returns the PSNR of the decoded and of the restored image, in dB."""
    x = x.mul(255).round() / 255
    image = compressed(x, quality)
    operator = decompressing()([image], False)
    result = restore(image.pixels, operator, prior, DitheredMean(steps=steps))
    written = result.image.clamp(0, 1).mul(255).round() / 255
    return {"decoded": psnr(image.pixels, x).item(), "restored": psnr(written, x).item()}


def report(rows: list[dict], photos: int, crop: int, steps: int) -> str:
    """Returns the table of all qualities, as Markdown."""
    lines = ["# JPEG: PSNR in dB", "",
             "| quality | photos | decoded | restored | gain | photos with a gain |",
             "| --- | --- | --- | --- | --- | --- |"]
    for quality in sorted({row["quality"] for row in rows}):
        values = torch.tensor([
            [row["decoded"], row["restored"]] for row in rows if row["quality"] == quality
        ])
        gains = values[:, 1] - values[:, 0]
        error = gains.std() / len(gains) ** 0.5
        lines.append(
            f"| {quality} | {len(gains)} | {values[:, 0].mean():.2f} | {values[:, 1].mean():.2f} "
            f"| {gains.mean():+.2f} ± {error:.2f} | {(gains > 0).float().mean():.0%} |"
        )
    versions = ", ".join(f"{name} {version(name)}" for name in ("genprior", "torch", "pillow"))
    return "\n".join([
        *lines, "",
        f"Mean over the central {crop} x {crop} pixels of {photos} test photos, colour, "
        f"{SAMPLING}, compressed by libjpeg; 8 bits, all channels. Prior `ddpm`, solver "
        f"`dithered-mean` with {steps} network evaluations; the error is the standard error of "
        f"the mean. {platform.machine()}, no GPU, {versions}.",
    ]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("test", type=Path)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--qualities", type=int, nargs="+", default=[10, 20, 40])
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior, (crop, steps) = load_prior("ddpm"), (options.crop, options.steps)
    data = RESULTS / "jpeg.json"
    stored = json.loads(data.read_text()) if data.exists() else {}
    settings = {"crop": crop, "steps": steps}
    rows = stored["rows"] if {k: stored.get(k) for k in settings} == settings else []
    files = sorted(options.test.iterdir())
    for file in files:
        whole = read_image(file).pixels
        top, left = ((side - crop) // 2 for side in whole.shape[-2:])
        x = whole[..., top : top + crop, left : left + crop]
        for quality in options.qualities:
            key = {"photo": file.name, "quality": quality}
            if not any(key.items() <= row.items() for row in rows):
                rows.append(key | measure(x, quality, prior, steps))
                data.write_text(json.dumps(settings | {"rows": rows}, indent=1) + "\n")
        print(f"{file.name}: {rows[-1]}", flush=True)
    RESULTS.joinpath("jpeg.md").write_text(report(rows, len(files), crop, steps))


if __name__ == "__main__":
    main()
