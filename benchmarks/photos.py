"""Eight restorations of the 68 test photos: ours beside the classical baselines.

    python benchmarks/photos.py baselines FOLDER     biharmonic, Wiener, bicubic (slow, once)
    python benchmarks/photos.py ours FOLDER          the default solver, default weights
    python benchmarks/photos.py report               results/photos.md from both

FOLDER holds the CBSD68 photos; 256x256 centre crops are measured. PSNR is per image, RGB,
data range 1, results clipped to [0, 1]; the table shows means over the images with a 95 %
interval. Every image is appended to the result file when done, so a stopped run resumes.
Baselines are tuned on these photos themselves (Wiener's balance), ours is not.
"""

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage
import torch
from torch import Tensor

from genprior.api import degrade, load_prior, restore
from genprior.images import image_files, read_image
from genprior.metrics import psnr, ssim
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.weights import find_prior

RESULTS = Path(__file__).parent / "results"
SIZE = 256
BALANCES = 10.0 ** np.arange(-3, 0.01, 0.25)


def hole_box(image: int) -> Operator:
    from genprior.operators.inpainting import Inpainting
    from genprior.operators.masks import box_hole

    return Inpainting(~box_hole((1, 3, SIZE, SIZE), 48, 48))


def holes(missing: float) -> Callable[[int], Operator]:
    def make(image: int) -> Operator:
        from genprior.operators.inpainting import Inpainting
        from genprior.operators.masks import random_keep

        generators = Noise(1, [image]).generators
        return Inpainting(random_keep((1, 3, SIZE, SIZE), missing, generators))

    return make


def blur(std: float) -> Callable[[int], Operator]:
    def make(image: int) -> Operator:
        from genprior.operators.blur import Blur
        from genprior.operators.kernels import gaussian_kernel

        return Blur(gaussian_kernel(std), boundary="circular")

    return make


def decimate(factor: int, std: float) -> Callable[[int], Operator]:
    def make(image: int) -> Operator:
        from genprior.operators.superres import SuperResolution

        return SuperResolution(factor, "gaussian", std, "circular", image_size=(SIZE, SIZE))

    return make


def noise_only(image: int) -> Operator:
    from genprior.operators.denoising import Denoising

    return Denoising()


TASKS: dict[str, tuple[Callable[[int], Operator], float]] = {
    "denoise 25/255": (noise_only, 25 / 255),
    "inpaint 50 %": (holes(0.5), 0.0),
    "inpaint 90 %": (holes(0.9), 0.0),
    "inpaint box 48": (hole_box, 0.0),
    "deblur std 1.6, 0.01": (blur(1.6), 0.01),
    "deblur std 3, 0.02": (blur(3.0), 0.02),
    "SR x2, 0.01": (decimate(2, 0.9), 0.01),
    "SR x4, 0.01": (decimate(4, 1.8), 0.01),
}


def photo(path: Path) -> Tensor:
    """Centre crop of a photo, shape (1, 3, 256, 256)."""
    x = read_image(path).pixels
    top, left = (x.shape[-2] - SIZE) // 2, (x.shape[-1] - SIZE) // 2
    return x[..., top : top + SIZE, left : left + SIZE]


def numbers(x: Tensor, truth: Tensor) -> dict[str, float]:
    x = x.clamp(0, 1)
    return {"psnr": psnr(x, truth).item(), "ssim": ssim(x, truth).item()}


def baseline(task: str, operator: Operator, y: Tensor, truth: Tensor) -> dict[str, dict]:
    """The classical results of one image, by name."""
    array = y[0].permute(1, 2, 0).double().numpy()
    if task.startswith("inpaint"):
        missing = operator.A(torch.ones_like(truth))[0, 0].numpy() == 0
        filled = skimage.restoration.inpaint_biharmonic(array, missing, channel_axis=-1)
        return {"biharmonic": numbers(_tensor(filled), truth)}
    if task.startswith("deblur"):
        kernel = operator.filter[0, 0].double().numpy()
        return {f"wiener {b:.3g}": numbers(_wiener(array, kernel, b), truth) for b in BALANCES}
    if task.startswith("SR"):
        half = torch.nn.functional.interpolate(y, (SIZE, SIZE), mode="bicubic")
        return {
            "bicubic": numbers(_bicubic(y, SIZE // y.shape[-1]), truth),
            "bicubic, half-pixel grid": numbers(half, truth),
        }
    return {"noisy": numbers(y, truth)}


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)[None].float()


def _wiener(array: np.ndarray, kernel: np.ndarray, balance: float) -> Tensor:
    wiener = skimage.restoration.wiener
    parts = [wiener(array[..., c], kernel, balance, clip=False) for c in range(3)]
    return _tensor(np.stack(parts, axis=-1))


def _bicubic(y: Tensor, factor: int) -> Tensor:
    # low-resolution pixel i sits on pixel factor * i, so coordinates are divided, not shifted
    position = torch.arange(SIZE) / factor / (y.shape[-1] - 1) * 2 - 1
    grid = torch.stack(torch.meshgrid(position, position, indexing="xy"), dim=-1)[None]
    return torch.nn.functional.grid_sample(
        y, grid.to(y), mode="bicubic", padding_mode="border", align_corners=True
    )


def measure(
    kind: str, folder: Path, out: Path, tasks: list[str], every: int, settings: dict
) -> None:
    """Runs what is missing in the result file `out`, one line of JSON per image and task."""
    done = {(r["task"], r["image"]) for r in map(json.loads, _lines(out))}
    prior = load_prior(settings.pop("prior")) if kind == "ours" else None
    files = list(enumerate(image_files(folder)))[::every]
    with open(out, "a") as file:
        for (i, path), task in itertools.product(files, tasks):
            if (task, path.name) in done:
                continue
            make, noise_std = TASKS[task]
            truth, operator = photo(path), make(i)
            y = degrade(truth, operator, noise_std, seed=0, index=i)
            record = {"task": task, "image": path.name}
            started = time.perf_counter()
            if kind == "ours":
                result = restore(y, operator, prior, noise_std=noise_std, index=i, **settings)
                record |= {"solver": result.solver, "nfe": result.nfe}
                record |= {"dtype": settings["dtype"], "misfit": result.misfit.item()}
                record |= numbers(result.image, truth)
            else:
                record["methods"] = baseline(task, operator, y, truth)
            record["seconds"] = round(time.perf_counter() - started, 2)
            file.write(json.dumps(record) + "\n")
            file.flush()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def report() -> str:
    """The table of both result files, as Markdown."""
    base = [json.loads(line) for line in _lines(RESULTS / "photos_baselines.jsonl")]
    ours = [json.loads(line) for line in _lines(RESULTS / "photos_ours.jsonl")]
    rows = [
        "| task | photos | baseline | PSNR | SSIM | genprior | PSNR | SSIM | gain, dB | s |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|---|---|")
    for task in TASKS:
        mine = [r for r in ours if r["task"] == task]
        names = {r["image"] for r in mine}
        theirs = [r["methods"] for r in base if r["task"] == task and r["image"] in names]
        if not theirs or not mine:
            continue
        mean = {m: np.mean([r[m]["psnr"] for r in theirs]) for m in theirs[0]}
        best = max(mean, key=mean.get)
        others = [f"{m} {mean[m]:.2f}" for m in mean if m != best and "wiener" not in m]
        values = np.array([r["psnr"] for r in mine])
        half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
        rows.append(
            f"| {task} | {len(mine)} | {'; '.join([best, *others])} | {mean[best]:.2f} | "
            f"{np.mean([r[best]['ssim'] for r in theirs]):.3f} | "
            f"{mine[0]['solver']}, {mine[0]['nfe']} NFE | {values.mean():.2f} ± {half:.2f} | "
            f"{np.mean([r['ssim'] for r in mine]):.3f} | {values.mean() - mean[best]:+.2f} | "
            f"{np.mean([r['seconds'] for r in mine]):.1f} |"
        )
    precision = " and ".join(sorted({r["dtype"] for r in ours}))
    manifest = json.loads((find_prior("ddpm") / "manifest.json").read_text())
    about = (
        f"Photos of CBSD68, {SIZE}x{SIZE} centre crops; default weights (step "
        f"{manifest['step']}, sha256 {manifest['files']['model.safetensors']['sha256'][:12]}), "
        f"default solver and options, network in {precision}. "
        f"torch {torch.__version__}, scikit-image {skimage.__version__}, "
        f"{platform.machine()} CPU. PSNR per image, RGB, data range 1, "
        f"clipped; mean ± 95 % interval over images. Wiener's balance is the best of "
        f"{len(BALANCES)} on these photos; circular boundaries, as the measurements have. "
        f"Bicubic interpolates on the grid the pixels were taken from; on the half-pixel grid of "
        f"`torch.nn.functional.interpolate` the image is shifted and the figure lower."
    )
    return "# Restoration of photos\n\n" + about + "\n\n" + "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["baselines", "ours", "report"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--every", type=int, default=1, help="take every Nth photo only")
    parser.add_argument("--prior", default="ddpm")
    parser.add_argument("--solver", default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.part == "report":
        (RESULTS / "photos.md").write_text(report())
        print(report())
        return
    out = given.out or RESULTS / f"photos_{given.part}.jsonl"
    settings = {"prior": given.prior, "solver": given.solver, "steps": given.steps}
    settings["dtype"] = given.dtype
    measure(given.part, given.folder, out, given.tasks, given.every, settings)


if __name__ == "__main__":
    main()
