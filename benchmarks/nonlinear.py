"""Phase retrieval and clipped images at the settings of DPS and DAPS, on small photos.

    python benchmarks/nonlinear.py TEST [--crop 48] [--every 12] [--methods hqs,daps,dps]

Phase retrieval: noise 0.05, oversampling 2. HDR: factor 2, pivot 0.5, noise 0.025. `daps` and
`dps` have their published settings and evaluations, and draw four samples of phase retrieval, one
of HDR. `hqs` refines four starts of phase retrieval. Compared are

    input      HDR: the measurement, as it is; phase retrieval: random pixels, the start of `daps`
               and `dps`
    start      what the operator finds without a prior: phases by alternating reflections from
               random images; clipped pixels by a smooth lift (baseline `measurement`)
    inverse    HDR only: clipped pixels at their limits
    kept       the sample, or start of `hqs`, that fits the data best: no reference is used
    best       the best of four by comparison with the reference, as papers report

The Fourier magnitude is the same for an image and its half turn: the PSNR of every column is that
of the nearer of the two. PSNR is of clipped images, over all channels. Writes
`results/nonlinear.md` and `.json` after each photo; a stopped run continues where it was.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from genprior import degrade, load_prior, make_operator, make_solver, restore
from genprior.core.metrics import psnr
from genprior.core.random_streams import Noise
from genprior.inverse.base import misfit
from genprior.inverse.plug_and_play.hqs import SUITED
from genprior.io.images import read_image
from genprior.operators.base import Operator
from genprior.operators.phase_retrieval import PhaseRetrieval
from genprior.priors.base import Denoiser

RESULTS = Path(__file__).parent / "results"
REFINED = SUITED["magnitudes"]["default"]
NOISE = {"phase": 0.05, "hdr": 0.025}
SETTINGS = {
    ("phase", "daps"): {"rate": 1.25e-5, "rate_end": 1.25e-7, "tau": 0.01},
    ("hdr", "daps"): {"rate": 5e-6, "rate_end": 5e-8},
    ("phase", "dps"): {"strength": 1.0},
    ("hdr", "dps"): {"strength": 1.0},
}


class Numbered(PhaseRetrieval):
    """Phase retrieval whose first start is start `k`."""

    def __init__(self, k: int) -> None:
        super().__init__(2.0)
        self.k = k

    def expansion_point(self, y: Tensor, start: int = 0) -> Tensor:
        return super().expansion_point(y, self.k + start)


def nearer(image: Tensor, x: Tensor, operator: Operator) -> float:
    """Returns the PSNR in dB; of the nearer of an image and its half turn for magnitudes."""
    turns = (image, image.flip(-2, -1)) if operator.has_several_minima else (image,)
    return max(psnr(turn.clamp(0, 1), x).item() for turn in turns)


def measure(
    x: Tensor, task: str, method: str, prior: Denoiser, number: int
) -> dict[str, float | list[float]]:
    """Returns PSNR in dB and misfits of one photo."""
    noise = NOISE[task]
    operator = (make_operator("phase", oversampling=2) if task == "phase"
                else make_operator("hdr", factor=2, pivot=0.5))
    y = degrade(x, operator, noise, index=number)
    raw = Noise(0, [number]).uniform(x) if task == "phase" else y
    found = {"input": nearer(raw, x, operator),
             "start": nearer(operator.expansion_point(y), x, operator)}
    if task == "hdr":
        values = operator.A(x)
        clipped = (values <= 0) | (values >= 1)
        found |= {"inverse": nearer(operator.pinv(y), x, operator),
                  "clipped": clipped.float().mean().item()}
    started = time.process_time()
    if method == "hqs" and task == "phase":
        candidates = [
            restore(y, Numbered(k), prior, make_solver("hqs", starts=1, **REFINED), noise).image
            for k in range(4)
        ]
    elif method == "hqs":
        candidates = [restore(y, operator, prior, "hqs", noise).image]
    else:
        solver = make_solver(method, **SETTINGS[task, method])
        samples = 4 if task == "phase" else 1
        result = restore(y, operator, prior, solver, noise, samples=samples, index=number)
        candidates = [result.image] if samples == 1 else list(result.samples.unbind(1))
    sigma = torch.tensor([noise])
    misfits = [misfit(image, y, operator, sigma).item() for image in candidates]
    scores = [nearer(image, x, operator) for image in candidates]
    chosen = scores[min(range(len(scores)), key=misfits.__getitem__)]
    return found | {"kept": chosen, "best": max(scores), "scores": scores, "misfits": misfits,
                    "cpu": time.process_time() - started}


def report(rows: list[dict], crop: int) -> str:
    """Returns the table, as Markdown."""
    lines = [
        "# Phase retrieval and HDR: PSNR in dB", "",
        "| task | method | photos | input | inverse | start | kept | over the input | "
        "over the start | best of four | over the start | CPU s |", "| --- " * 12 + "|",
    ]
    for task, method in sorted({(row["task"], row["method"]) for row in rows}):
        own = [row for row in rows if (row["task"], row["method"]) == (task, method)]
        names = ("input", "start", "kept", "best", "cpu")
        raw, start, kept, best, cpu = (sum(row[name] for row in own) / len(own) for name in names)
        hdr = task == "hdr"
        inverse = f"{sum(row['inverse'] for row in own) / len(own):.2f}" if hdr else ""
        of_four = " | " if hdr else f"{best:.2f} | {best - start:+.2f}"
        lines.append(f"| {task} | {method} | {len(own)} | {raw:.2f} | {inverse} | {start:.2f} | "
                     f"{kept:.2f} | {kept - raw:+.2f} | {kept - start:+.2f} | {of_four} | "
                     f"{cpu:.0f} |")
    versions = ", ".join(f"{name} {version(name)}" for name in ("genprior", "torch"))
    return "\n".join([
        *lines, "",
        f"Mean over the central {crop} x {crop} pixels of test photos, colour; prior `ddpm`. What "
        f"the columns are says `benchmarks/nonlinear.py`. Rows of fewer photos are not comparable "
        f"with others. One core of {platform.machine()}, {versions}.",
    ]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("test", type=Path)
    parser.add_argument("--crop", type=int, default=48)
    parser.add_argument("--every", type=int, default=12)
    parser.add_argument("--tasks", default="phase,hdr")
    parser.add_argument("--methods", default="hqs,daps,dps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior, crop = load_prior("ddpm"), options.crop
    data = RESULTS / "nonlinear.json"
    stored = json.loads(data.read_text()) if data.exists() else {}
    rows = stored["rows"] if stored.get("crop") == crop else []
    for number, file in list(enumerate(sorted(options.test.iterdir())))[:: options.every]:
        whole = read_image(file).pixels
        top, left = ((side - crop) // 2 for side in whole.shape[-2:])
        x = whole[..., top : top + crop, left : left + crop]
        for task in options.tasks.split(","):
            for method in options.methods.split(","):
                key = {"photo": file.name, "task": task, "method": method}
                if not any(key.items() <= row.items() for row in rows):
                    rows.append(key | measure(x, task, method, prior, number))
                    data.write_text(json.dumps({"crop": crop, "rows": rows}, indent=1) + "\n")
                    RESULTS.joinpath("nonlinear.md").write_text(report(rows, crop))
                    print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
