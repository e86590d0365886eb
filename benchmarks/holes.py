"""Wide holes: texture, seams and PSNR of each way to fill them, on photos.

    python benchmarks/holes.py PHOTOS [--limit 68] [--size 192] [--seeds 2] [--holes box64,...]

Each photo is cropped at its centre (`--size 0`: not at all), and its hole is filled by `hqs`
(smooth), by patches of the photo (`exemplar`), by these with their seams restored by `hqs`
(`texture`), by biharmonic functions, and by OpenCV's Telea and Navier-Stokes if `cv2` is
installed. Writes `results/holes.json` and `results/holes.md`, and with `--pictures` the images.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import genprior
from genprior.api.factory import make_baseline
from genprior.core.metrics import border_jump, gradient_ratio, hole_psnr, patch_distance
from genprior.io.images import image_files, read_image, write_image
from genprior.operators.masks import box_hole

RESULTS = Path(__file__).parent / "results"
BLOT_SHARE = 0.08
COLUMNS = ("patch distance", "gradient", "jump", "PSNR", "seconds")


def blot(height: int, width: int, seed: int) -> Tensor:
    """Returns an irregular hole of 8 % of the image: the peak of smooth noise near the centre."""
    noise = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed))
    for _ in range(3):
        noise = avg_pool2d(noise, 25, 1, 12, count_include_pad=False)
    noise = (noise - noise.mean()) / noise.std()
    rows, columns = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    score = noise - 8 * (rows**2 + columns**2)
    return score >= score.flatten().topk(round(BLOT_SHARE * height * width)).values[-1]


def hole_of(name: str, shape: torch.Size, seed: int) -> Tensor:
    """Returns the hole of a name, (1, 1, H, W): box64, box96 or blot."""
    if name == "blot":
        return blot(*shape[-2:], seed)
    side = int(name.removeprefix("box"))
    return box_hole((1, *shape[-3:]), side, side)


def fillers(prior: object) -> dict[str, Callable]:
    """Returns the methods by name: (y, operator, hole, seed) -> image."""
    methods: dict[str, Callable] = {
        "hqs": lambda y, a, hole, seed: genprior.restore(y, a, prior, "hqs", seed=seed).image,
        "exemplar": lambda y, a, hole, seed: genprior.restore(
            y, a, None, make_baseline("exemplar"), seed=seed).image,
        "texture": lambda y, a, hole, seed: genprior.restore(
            y, a, prior, "hqs", seed=seed, fill="texture").image,
        "biharmonic": lambda y, a, hole, seed: genprior.restore(
            y, a, None, make_baseline("biharmonic")).image,
    }
    try:
        import cv2
    except ImportError:
        return methods

    def opencv(flag: int) -> Callable:
        def run(y: Tensor, a: object, hole: Tensor, seed: int) -> Tensor:
            array = (255 * y[0]).round().byte().permute(1, 2, 0).contiguous().numpy()
            filled = cv2.inpaint(array, hole[0, 0].byte().numpy(), 5, flag)
            return torch.where(hole, torch.from_numpy(filled).permute(2, 0, 1)[None] / 255, y)
        return run

    methods["Telea"] = opencv(cv2.INPAINT_TELEA)
    methods["Navier-Stokes"] = opencv(cv2.INPAINT_NS)
    return methods


def measure(x: Tensor, hole: Tensor, filler: Callable, seed: int) -> tuple[Tensor, list[float]]:
    """Returns the filled image, and the values of `COLUMNS`."""
    operator = genprior.make_operator("inpaint", keep=~hole)
    started = time.perf_counter()
    image = filler(operator.A(x), operator, hole, seed).clamp(0, 1)
    seconds = time.perf_counter() - started
    if not torch.equal(operator.A(image), operator.A(x)):
        raise AssertionError("a method changed known pixels")
    scores = (patch_distance(image, x, hole), gradient_ratio(image, hole),
              border_jump(image, hole), hole_psnr(image, x, hole))
    return image, [*(score.item() for score in scores), seconds]


def table(records: list[dict]) -> str:
    """Returns the means over photos and seeds as Markdown; the distance is relative to hqs."""
    lines = ["| hole | method | patch distance / that of hqs | gradient / ring | jump | PSNR, dB "
             "| seconds |", "|---|---|---|---|---|---|---|"]
    for name in dict.fromkeys(r["hole"] for r in records):
        here = [r for r in records if r["hole"] == name]
        mean = {m: [fmean(r["scores"][k] for r in here if r["method"] == m)
                    for k in range(len(COLUMNS))]
                for m in dict.fromkeys(r["method"] for r in here)}
        for method, (distance, gradient, jump, psnr, seconds) in mean.items():
            relative = distance / mean["hqs"][0]
            lines.append(f"| {name} | {method} | {relative:.2f} | {gradient:.2f} | {jump:.2f} "
                         f"| {psnr:.2f} | {seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=68)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--holes", default="box64,box96,blot")
    parser.add_argument("--output", type=Path, default=RESULTS / "holes.json")
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    methods, records = fillers(genprior.load_prior("ddpm")), []
    for file in sorted(image_files(given.photos))[: given.limit]:
        x = read_image(file).pixels
        if given.size:
            top, left = ((side - given.size) // 2 for side in x.shape[-2:])
            x = x[..., top : top + given.size, left : left + given.size].clone()
        for name in given.holes.split(","):
            for seed in range(given.seeds):
                hole = hole_of(name, x.shape, seed)
                for method, filler in methods.items():
                    image, scores = measure(x, hole, filler, seed)
                    records.append({"photo": file.name, "hole": name, "seed": seed,
                                    "method": method, "scores": scores})
                    if given.pictures and not seed:
                        given.pictures.mkdir(parents=True, exist_ok=True)
                        write_image(given.pictures / f"{file.stem}-{name}-{method}.png", image)
        print(file.name, flush=True)
        given.output.write_text(json.dumps({"columns": COLUMNS, "records": records}) + "\n")
    given.output.with_suffix(".md").write_text(
        f"{__doc__.splitlines()[0]} {given.size or 'whole'} pixels, {given.photos.name}, "
        f"{len({r['photo'] for r in records})} photos, {given.seeds} seeds.\n\n{table(records)}\n"
    )


if __name__ == "__main__":
    main()
