"""Noise level estimation in test photos by the default prior and by deepinv.

    python benchmarks/noise_level.py TEST [--every 4]

White noise is added to the central crop of a photo, in colour or grey, which is unchanged, blurred
or has holes. The measurement is clipped and rounded to 8 bits. Writes the ratio of the estimated
level and the level of the clipped noise, as mean and standard deviation over the photos, to
`results/noise_level.md` and `.json`.
"""

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import deepinv
import torch
from torch import Tensor

from genprior import degrade, estimate_noise, load_prior, make_operator
from genprior.io.images import read_image
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.masks import box_hole, random_keep
from genprior.priors.base import Denoiser

RESULTS = Path(__file__).parent / "results"
SIDE = 256
LEVELS = 0.01, 0.03, 0.1
NAMES = "ddpm", "deepinv"
SQUARE = 1, 1, SIDE, SIDE
OPERATORS = {
    "as it is": make_operator("denoise"),
    "blurred, std 1.6": make_operator("deblur", kernel=gaussian_kernel(1.6)),
    "a hole of 128 x 128": make_operator("inpaint", keep=~box_hole(SQUARE, 128, 128)),
    "half missing": make_operator("inpaint", keep=random_keep(SQUARE, 0.5)),
    "nine tenths missing": make_operator("inpaint", keep=random_keep(SQUARE, 0.9)),
}


def measured(x: Tensor, how: str, level: float, seed: int) -> tuple[Tensor, Tensor, float]:
    """Returns a noisy 8-bit measurement, its mask of known pixels, and its true noise level."""
    operator = OPERATORS[how]
    y = degrade(x, operator, level, seed=seed).clamp(0, 1).mul(255).round() / 255
    keep = operator.mask_unmeasured(torch.ones_like(y)) > 0
    return y, keep[:, :1], (y - operator.A(x))[keep].std().item()


def estimates(y: Tensor, keep: Tensor, prior: Denoiser) -> dict[str, Tensor]:
    """Returns the estimated levels; the estimator of deepinv takes only images without holes."""
    found = {"ddpm": estimate_noise(y, prior, keep=keep)}
    if keep.all():
        found["deepinv"] = deepinv.models.PatchCovarianceNoiseEstimator()(y)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("test", type=Path)
    parser.add_argument("--every", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior("ddpm")
    files = sorted(options.test.iterdir())[:: options.every]
    ratios: dict[tuple, list[float]] = {}
    for number, file in enumerate(files):
        whole = read_image(file).pixels
        top, left = ((side - SIDE) // 2 for side in whole.shape[-2:])
        colour = whole[..., top : top + SIDE, left : left + SIDE]
        for kind, x in (("colour", colour), ("grey", colour.mean(dim=1, keepdim=True))):
            for how in OPERATORS:
                for level in LEVELS:
                    y, keep, true_level = measured(x, how, level, number)
                    for name, estimate in estimates(y, keep, prior).items():
                        ratios.setdefault((kind, how, level, name), []).append(
                            estimate.item() / true_level
                        )
        print(f"{number + 1} of {len(files)}", flush=True)
    lines = ["# Estimated over true noise level", "",
             f"| image | measurement | noise | {' | '.join(NAMES)} |",
             f"| --- | --- | --- |{' --- |' * len(NAMES)}"]
    for kind, how, level in dict.fromkeys(key[:3] for key in ratios):
        values = [torch.tensor(ratios.get((kind, how, level, name), [])) for name in NAMES]
        cells = [f"{v.mean():.3f} ± {v.std():.3f}" if len(v) else "" for v in values]
        lines.append(f"| {kind} | {how} | {level} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {version(name)}" for name in ("genprior", "torch", "deepinv"))
    lines += ["", f"Mean and standard deviation over {len(files)} of the test photos (one in "
              f"{options.every}), their central {SIDE} x {SIDE} pixels, 8 bits; `ddpm` is "
              f"`genprior.estimate_noise`; `deepinv` is its `PatchCovarianceNoiseEstimator`, for "
              f"images without holes. {platform.machine()}, no GPU, {versions}."]
    RESULTS.joinpath("noise_level.md").write_text("\n".join(lines) + "\n")
    rows = [{"picture": k, "measured": h, "noise": s, "estimator": n, "ratios": v}
            for (k, h, s, n), v in ratios.items()]
    RESULTS.joinpath("noise_level.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
