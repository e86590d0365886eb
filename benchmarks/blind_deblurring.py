"""Deblurring of test photos with an estimated kernel, against the true kernel.

    python benchmarks/blind_deblurring.py TEST [--photos 6] [--crop 224] [--window 128]

The centre crops of photos, evenly spaced in the folder, are blurred by eight kernels, with white
noise. `estimate_kernel` sees the whole blurred crop and is told the level of the noise. `restore`
then restores the central window of the blurred crop with the true and with the estimated kernel.
PSNR is that of the inner part of the window. A blind estimate fixes an image up to a shift, so
both results are first shifted (by the same search, in steps of 1/4 pixel) to fit the reference.
Writes `results/blind_deblurring.md` and `.json`; a stopped run continues where it was.
"""

import argparse
import json
import math
import platform
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torch.fft import fftfreq, irfft2, rfft2, rfftfreq

from genprior import degrade, estimate_kernel, load_prior, restore
from genprior.api.kernel_estimation import kernel_doubts
from genprior.core.errors import RestorationWarning
from genprior.core.metrics import psnr
from genprior.io.images import read_image
from genprior.operators.blur import Blur
from genprior.operators.kernels import disc_kernel, gaussian_kernel, motion_kernel

RESULTS = Path(__file__).parent / "results"
NOISE = 0.01
# Border of the window that is not scored, and largest shift, in pixels.
BORDER, SHIFT = 6, 2
# Largest loss in dB of an estimate that counts as good.
ALLOWED = 1.5


def curved_motion(extent: float, seed: int) -> Tensor:
    """Returns the kernel of a smooth random path, `extent` pixels long in its longer direction."""
    generator = torch.Generator().manual_seed(seed)
    steps = 2000
    turn = torch.randn(steps, generator=generator).double().cumsum(0) * 0.03
    angle = turn + 6 * torch.rand(1, generator=generator).double()
    path = torch.stack([angle.sin().cumsum(0), angle.cos().cumsum(0)], dim=1)
    path = path * (extent - 1) / (path.amax(0) - path.amin(0)).max()
    path = path - path.mean(dim=0)
    radius = math.ceil(path.abs().max().item())
    k = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    for corner in torch.cartesian_prod(torch.arange(2), torch.arange(2)):
        pixel = path.floor().long() + corner
        share = (1 - (path - pixel).abs()).prod(dim=1)
        pixel = (pixel + radius).clamp(0, 2 * radius)
        k.index_put_((pixel[:, 0], pixel[:, 1]), share, accumulate=True)
    return k / k.sum()


KERNELS = {
    "motion 11 px, 40 degrees": motion_kernel(11, 40),
    "motion 21 px, 110 degrees": motion_kernel(21, 110),
    "curved motion 13 px": curved_motion(13, 5),
    "curved motion 19 px": curved_motion(19, 6),
    "Gaussian 1.2 px": gaussian_kernel(1.2),
    "Gaussian 2.5 px": gaussian_kernel(2.5),
    "disc 4.5 px": disc_kernel(4.5),
    "disc 8 px": disc_kernel(8.0),
}
# Kernels that are also checked 10 degrees off.
TURNED = {
    "motion 11 px, 40 degrees": motion_kernel(11, 50),
    "motion 21 px, 110 degrees": motion_kernel(21, 120),
}


def middle(x: Tensor, height: int, width: int) -> Tensor:
    """Returns the centre of images; whatever their size has the same centre pixel (h // 2)."""
    top, left = x.shape[-2] // 2 - height // 2, x.shape[-1] // 2 - width // 2
    return x[..., top : top + height, left : left + width]


def registered_psnr(x: Tensor, reference: Tensor) -> float:
    """Returns the largest PSNR of shifts of x, in dB, without a border."""
    v = fftfreq(x.shape[-2]).to(x)[:, None]
    u = rfftfreq(x.shape[-1]).to(x)[None]
    spectrum, best = rfft2(x), -math.inf
    inner = reference[..., BORDER:-BORDER, BORDER:-BORDER]
    for down in torch.linspace(-SHIFT, SHIFT, 8 * SHIFT + 1):
        for right in torch.linspace(-SHIFT, SHIFT, 8 * SHIFT + 1):
            phase = torch.exp(-2j * math.pi * (v * down + u * right))
            moved = irfft2(spectrum * phase, s=x.shape[-2:])[..., BORDER:-BORDER, BORDER:-BORDER]
            best = max(best, psnr(moved, inner).item())
    return best


def restored(y: Tensor, kernel: Tensor, window: int, prior: object) -> Tensor:
    """Returns the restored window, from the part of y that measures it."""
    y = middle(y, window, window)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RestorationWarning)
        operator = Blur(kernel, iterations=50, tolerance=1e-3)
        return restore(y, operator, prior, noise_std=NOISE).image


def measure(x: Tensor, name: str, prior: object, window: int) -> dict:
    """Returns PSNR in dB with the true and the estimated kernel, and the warnings about both."""
    kernel = KERNELS[name]
    y = degrade(x, Blur(kernel), NOISE)
    estimate = estimate_kernel(y, noise_std=NOISE)
    h, w = kernel.shape
    # the centre pixel of y is that of x, moved by half of the kernel
    whole = x[..., h - 1 - h // 2 : x.shape[-2] - h // 2, w - 1 - w // 2 : x.shape[-1] - w // 2]
    reference = middle(whole, window, window)
    known = restored(y, kernel, window, prior)
    blind = restored(y, estimate.kernel[0, 0], window, prior)
    sigma = torch.tensor([NOISE])
    row = {
        "found": estimate.found[0],
        "blurred": registered_psnr(middle(y, window, window), reference),
        "known": registered_psnr(known, reference),
        "blind": registered_psnr(blind, reference),
        "doubts_known": len(kernel_doubts(y, Blur(kernel), sigma)),
        "doubts_blind": len(kernel_doubts(y, Blur(estimate.kernel), sigma)),
    }
    if name in TURNED:
        row["doubts_turned"] = len(kernel_doubts(y, Blur(TURNED[name]), sigma))
    return row


def report(rows: list[dict], photos: int, crop: int, window: int) -> str:
    """Returns the table of all kernels, as Markdown."""
    lines = ["# Blind deblurring: PSNR in dB", "",
             f"| kernel | blurred | true kernel | estimated | median loss | within {ALLOWED} dB |",
             "| --- | --- | --- | --- | --- | --- |"]
    for name in [*KERNELS, "all"]:
        some = [row for row in rows if name in (row["kernel"], "all")]
        if not some:
            continue
        columns = [[row[key] for row in some] for key in ("blurred", "known", "blind")]
        blurred, known, blind = (torch.tensor(column) for column in columns)
        loss = known - blind
        lines.append(
            f"| {name} | {blurred.mean():.2f} | {known.mean():.2f} | {blind.mean():.2f} | "
            f"{loss.quantile(0.5):.2f} | {(loss <= ALLOWED).sum()} of {len(some)} |"
        )
    turned = [row["doubts_turned"] for row in rows if "doubts_turned" in row]
    failed = [row for row in rows if row["known"] - row["blind"] > ALLOWED]
    versions = ", ".join(f"{name} {version(name)}" for name in ("genprior", "torch"))
    return "\n".join([
        *lines, "",
        f"Warnings that the kernel does not fit: {sum(turned)} of {len(turned)} kernels turned by "
        f"10 degrees, {sum(row['doubts_known'] for row in rows)} of {len(rows)} true kernels, "
        f"{sum(row['doubts_blind'] for row in failed)} of {len(failed)} estimates with a loss "
        f"above {ALLOWED} dB.",
        "",
        f"{len(rows)} of {photos * len(KERNELS)} pairs of {photos} test photos and "
        f"{len(KERNELS)} kernels; crops of {crop} x {crop} pixels, noise {NOISE}; the kernel was "
        f"estimated from the whole blurred crop, and the central {window} x {window} pixels were "
        f"restored with the prior `ddpm` and the default solver, and scored without a border "
        f"of {BORDER} pixels, after registration. {platform.machine()}, no GPU, {versions}.",
    ]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("test", type=Path)
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--window", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior, crop = load_prior("ddpm"), options.crop
    data = RESULTS / "blind_deblurring.json"
    stored = json.loads(data.read_text()) if data.exists() else {}
    settings = {"crop": crop, "window": options.window}
    rows = stored["rows"] if {k: stored.get(k) for k in settings} == settings else []
    files = sorted(options.test.iterdir())
    files = files[:: len(files) // options.photos][: options.photos]
    for file in files:
        x = middle(read_image(file).pixels, crop, crop)
        for name in KERNELS:
            key = {"photo": file.name, "kernel": name}
            if not any(key.items() <= row.items() for row in rows):
                rows.append(key | measure(x, name, prior, options.window))
                data.write_text(json.dumps(settings | {"rows": rows}, indent=1) + "\n")
                text = report(rows, len(files), crop, options.window)
                RESULTS.joinpath("blind_deblurring.md").write_text(text)
                print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
