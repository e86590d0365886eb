"""Denoising with a known law of the noise, in dB over a method that does not use it.

    python benchmarks/noise_laws.py TEST [--crop 96] [--every 4]

Poisson noise: the default solver against the baseline `anscombe`, which is the exact unbiased
inverse of the Anscombe transform (Mäkitalo and Foi, 2011) and the same denoiser, once. Correlated
noise (3 x 3 box filter of white noise): the known spectrum against white noise of the same level.
White noise: the level that `restore` estimates ("auto") against the true one. PSNR is that of the
clipped result, over all channels. Writes `results/noise_laws.md` and `.json` after each photo; a
stopped run continues where it was.
"""

import argparse
import json
import platform
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from genprior import degrade, load_prior, make_operator, restore
from genprior.core.metrics import psnr
from genprior.inverse.baselines.anscombe import Anscombe
from genprior.io.images import read_image
from genprior.priors.base import Denoiser

RESULTS = Path(__file__).parent / "results"
PEAKS = (10, 30, 100)
CORRELATED = "correlated=0.05,3"
WHITE = ("5/255", "15/255", "25/255", "50/255")


def measure(x: Tensor, law: str, prior: Denoiser, number: int) -> dict[str, float]:
    """Returns the PSNR of the noisy image and of both results, in dB."""
    operator = make_operator("denoise")
    given = float(Fraction(law)) if law in WHITE else law
    y = degrade(x, operator, given, index=number)
    used = "auto" if law in WHITE else law
    known = restore(y, operator, prior, noise_std=used, index=number).image
    if law in WHITE:
        other = restore(y, operator, prior, noise_std=given, index=number).image
    elif law == CORRELATED:
        level = float(law.partition("=")[2].partition(",")[0])
        other = restore(y, operator, prior, noise_std=level, index=number).image
    else:
        other = restore(y, operator, prior, Anscombe(), law, index=number).image
    images = {"noisy": y, "reference method": other, "law": known}
    return {name: psnr(image.clamp(0, 1), x).item() for name, image in images.items()}


def report(rows: list[dict], crop: int) -> str:
    """Returns the table of all laws, as Markdown."""
    lines = ["# Known laws of noise: PSNR in dB", "",
             "| noise | photos | noisy | reference method | law | gain | worst photo |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for law in dict.fromkeys(row["law used"] for row in rows):
        values = torch.tensor([
            [row["noisy"], row["reference method"], row["law"]]
            for row in rows if row["law used"] == law
        ])
        noisy, other, known = values.mean(dim=0).tolist()
        gains = values[:, 2] - values[:, 1]
        error = gains.std(correction=min(1, len(gains) - 1)) / len(gains) ** 0.5
        lines.append(
            f"| {law} | {len(gains)} | {noisy:.2f} | {other:.2f} | {known:.2f} | "
            f"{gains.mean():+.2f} ± {error:.2f} | {gains.min():+.2f} |"
        )
    versions = ", ".join(f"{name} {version(name)}" for name in ("genprior", "torch"))
    return "\n".join([
        *lines, "",
        f"Mean over the central {crop} x {crop} pixels of test photos, colour. The reference "
        f"method of Poisson noise is the Anscombe transform, the same denoiser and the exact "
        f"unbiased inverse (baseline `anscombe`); of correlated noise, white noise of the same "
        f"level; of white noise, whose law is estimated here, the true level. Prior `ddpm`, "
        f"default solver and evaluations; the error is the standard error of "
        f"the mean. {platform.machine()}, no GPU, {versions}.",
    ]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("test", type=Path)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--every", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior, crop = load_prior("ddpm"), options.crop
    data = RESULTS / "noise_laws.json"
    stored = json.loads(data.read_text()) if data.exists() else {}
    rows = stored["rows"] if stored.get("crop") == crop else []
    files = sorted(options.test.iterdir())
    laws = [*(f"poisson={peak}" for peak in PEAKS), CORRELATED, *WHITE]
    for number, file in list(enumerate(files))[:: options.every]:
        whole = read_image(file).pixels
        top, left = ((side - crop) // 2 for side in whole.shape[-2:])
        x = whole[..., top : top + crop, left : left + crop]
        for law in laws:
            key = {"photo": file.name, "law used": law}
            if not any(key.items() <= row.items() for row in rows):
                rows.append(key | measure(x, law, prior, number))
                data.write_text(json.dumps({"crop": crop, "rows": rows}, indent=1) + "\n")
                RESULTS.joinpath("noise_laws.md").write_text(report(rows, crop))
        print(f"{file.name}: {rows[-1]}", flush=True)


if __name__ == "__main__":
    main()
