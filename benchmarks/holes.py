"""Wide holes: texture, seams and PSNR of each way to fill them, on photos.

    python benchmarks/holes.py PHOTOS [--limit 68] [--size 192] [--seeds 2] [--holes box64,...]

Each photo is cropped at its centre (`--size 0`: not at all), and its hole is filled by `hqs`
(`--steps` network evaluations), by patches of the photo (`exemplar`), by the tones of `hqs` and
the texture of patches (`texture`), by biharmonic functions, and by OpenCV's Telea and
Navier-Stokes if `cv2` is installed. Writes `results/holes.json` and `results/holes.md`, and with
`--pictures` the images. If it is interrupted, the same command goes on where it stopped.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from math import isfinite
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import genprior
from genprior.api.factory import make_baseline
from genprior.api.texture_fill import blended
from genprior.core.metrics import border_jump, gradient_ratio, hole_psnr, patch_distance
from genprior.core.patch_match import fill_from_patches
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


def fillers() -> dict[str, Callable]:
    """Returns the methods without a seed by name: (y, operator, hole) -> image."""
    methods: dict[str, Callable] = {
        "biharmonic": lambda y, a, hole: genprior.restore(
            y, a, None, make_baseline("biharmonic")).image,
    }
    try:
        import cv2
    except ImportError:
        return methods

    def opencv(flag: int) -> Callable:
        def run(y: Tensor, a: object, hole: Tensor) -> Tensor:
            array = (255 * y[0]).round().byte().permute(1, 2, 0).contiguous().numpy()
            filled = cv2.inpaint(array, hole[0, 0].byte().numpy(), 5, flag)
            return torch.where(hole, torch.from_numpy(filled).permute(2, 0, 1)[None] / 255, y)
        return run

    methods["Telea"] = opencv(cv2.INPAINT_TELEA)
    methods["Navier-Stokes"] = opencv(cv2.INPAINT_NS)
    return methods


def measure(x: Tensor, hole: Tensor, fill: Callable) -> tuple[Tensor, list[float]]:
    """Returns the filled image, and the values of `COLUMNS`."""
    started = time.perf_counter()
    image = fill().clamp(0, 1)
    seconds = time.perf_counter() - started
    if not torch.equal(torch.where(hole, 0, image), torch.where(hole, 0, x)):
        raise AssertionError("a method changed known pixels")
    around = near(hole)
    image_, x_, hole_ = image[around], x[around], hole[around]
    scores = (patch_distance(image_, x_, hole_), gradient_ratio(image_, hole_),
              border_jump(image_, hole_), hole_psnr(image_, x_, hole_))
    return image, [*(score.item() for score in scores), seconds]


def near(hole: Tensor) -> tuple:
    """Returns the part of an image with its hole and the ring around it."""
    found = []
    for axis in (-1, -2):
        lines = hole[0, 0].any(dim=axis).nonzero().flatten().tolist()
        found.append(slice(max(lines[0] - 20, 0), lines[-1] + 21))
    return (..., *found)


def trials(
    x: Tensor, hole: Tensor, seed: int, methods: dict[str, Callable], hqs: Callable
) -> dict[str, tuple[Tensor, list[float]]]:
    """Returns the image and the scores of each method; the seconds of texture include all steps.

    `exemplar` and `texture` share their copies.
    """
    operator = genprior.make_operator("inpaint", keep=~hole)
    y, known = operator.A(x), ~hole[0, 0]
    done = {"reference": measure(x, hole, lambda: x)}
    done["hqs"] = measure(x, hole, lambda: hqs(y, operator))
    smooth = done["hqs"][0][0]
    fills = []

    def copies() -> Tensor:
        fills.append(fill_from_patches(smooth, known, torch.Generator().manual_seed(seed)))
        return fills[0].image[None]

    done["exemplar"] = measure(x, hole, copies)
    done["texture"] = measure(
        x, hole, lambda: blended(smooth, fills[0], hole[0, 0], known)[None])
    done["texture"][1][-1] += done["hqs"][1][-1] + done["exemplar"][1][-1]
    for name, method in methods.items():
        done[name] = measure(x, hole, partial(method, y, operator, hole))
    return done


def table(records: list[dict]) -> str:
    """Returns the means over photos and seeds as Markdown; the distance is relative to hqs."""
    lines = ["| hole | photos x seeds | method | patch distance / that of hqs | gradient / ring "
             "| jump | PSNR, dB | seconds |", "|---|---|---|---|---|---|---|---|"]
    for name in dict.fromkeys(r["hole"] for r in records):
        here = [r for r in records if r["hole"] == name]
        methods = list(dict.fromkeys(r["method"] for r in here))
        mean = {m: [fmean(v) if None not in v else None for v in zip(
            *(r["scores"] for r in here if r["method"] == m), strict=True)] for m in methods}
        reference = mean["hqs"][0]
        for method, (distance, *others) in mean.items():
            cells = [f"{distance / reference:.2f}", *("" if v is None else f"{v:.2f}"
                                                      for v in others)]
            lines.append(f"| {name} | {len(here) // len(methods)} | {method} | "
                         f"{' | '.join(cells)} |")
    return "\n".join(lines)


def report(records: list[dict], settings: dict) -> str:
    """Returns the table with its settings as Markdown."""
    crop = f"centre crops of {settings['size']} pixels" if settings["size"] else "whole images"
    about = (f"Photos of `{settings['photos']}`, {crop}, in the hole. `hqs` and the tones of "
             f"`texture` have {settings['steps']} network evaluations. A box does not depend on "
             "the seed, but the copies do. Written by `benchmarks/holes.py`.")
    return f"# Wide holes\n\n{about}\n\n{table(records)}\n"


def save(path: Path, text: str) -> None:
    """Writes a file at once, so that an interrupt cannot damage it."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=68)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--holes", default="box64,box96,blot")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--output", type=Path, default=RESULTS / "holes.json")
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    prior, methods = genprior.load_prior("ddpm"), fillers()
    settings = {"photos": given.photos.name, "size": given.size, "steps": given.steps}
    records = []
    if given.output.exists():
        before = json.loads(given.output.read_text())
        if before["settings"] != settings:
            parser.error(f"{given.output} has other settings: {before['settings']}")
        records = before["records"]
    done = {(r["photo"], r["hole"], r["seed"]) for r in records}

    def hqs(y: Tensor, operator: object) -> Tensor:
        return genprior.restore(y, operator, prior, "hqs", steps=given.steps).image

    files = sorted(image_files(given.photos))[: given.limit]
    # whole tables first: an interrupted run has the same photos for all methods
    for seed, name, file in product(range(given.seeds), given.holes.split(","), files):
        if (file.name, name, seed) in done:
            continue
        x = read_image(file).pixels
        if given.size:
            top, left = ((side - given.size) // 2 for side in x.shape[-2:])
            x = x[..., top : top + given.size, left : left + given.size].clone()
        hole = hole_of(name, x.shape, seed)
        for method, (image, scores) in trials(x, hole, seed, methods, hqs).items():
            records.append({"photo": file.name, "hole": name, "seed": seed, "method": method,
                            "scores": [s if isfinite(s) else None for s in scores]})
            if given.pictures and not seed:
                given.pictures.mkdir(parents=True, exist_ok=True)
                write_image(given.pictures / f"{file.stem}-{name}-{method}.png", image)
        print(name, seed, file.name, flush=True)
        content = {"columns": COLUMNS, "settings": settings, "records": records}
        save(given.output, json.dumps(content) + "\n")
        save(given.output.with_suffix(".md"), report(records, settings))


if __name__ == "__main__":
    main()
