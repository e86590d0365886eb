"""Cost and quality of denoising networks: one pass at 256 x 256, and PSNR at 25/255.

    python benchmarks/network_cost.py PRIOR... [--images FOLDER] [--name NAME]

PRIORs are names of sets that ship or folders of training runs. All are measured in turns in one
run, one thread, float32, so that ratios to the first one hold on a busy machine. PSNR is that of
one pass (no self-ensemble) on centre crops of FOLDER with noise of 25/255, the same for all.
Writes `results/NAME.json` and `.md`.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from genprior import load_prior
from genprior.core.environment import machine
from genprior.core.metrics import psnr
from genprior.core.random_streams import Noise
from genprior.io.images import read_image
from genprior.priors.checkpoint import newest, read_manifest
from genprior.registry import find_prior

RESULTS = Path(__file__).parent / "results"
SIDE, SIGMA = 256, 25 / 255
HEAD = ("network", "parameters", "MAC a pixel", "steps", "pixels seen", "time", "PSNR 25/255")


def macs_per_pixel(network: nn.Module) -> float:
    """Multiply-adds of the convolutions of one pass, per pixel of the image."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        taps = layer.weight.numel() / layer.weight.shape[0 if layer.transposed else 1]
        places = inputs[0] if layer.transposed else output
        channels = layer.in_channels
        total += channels * taps * places[0, 0].numel() / (channels if layer.transposed else 1)

    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        network(torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1))
    for hook in hooks:
        hook.remove()
    return total / SIDE**2


def crops(folder: Path, count: int, side: int) -> Tensor:
    """Centre crops of the first images of a folder."""
    images = [read_image(path).pixels for path in sorted(folder.iterdir())[:count]]
    corners = [((x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2) for x in images]
    cut = [x[..., i : i + side, j : j + side] for x, (i, j) in zip(images, corners, strict=True)]
    return torch.cat(cut)


def quality(prior: nn.Module, x: Tensor) -> float:
    """Mean PSNR of one pass on images x with noise."""
    scores = []
    with torch.no_grad():
        for number, clean in enumerate(x.split(1)):
            noisy = clean + SIGMA * Noise(0, [number]).normal(clean)
            scores.append(psnr(prior.denoise(noisy, SIGMA).clamp(0, 1), clean).item())
    return sum(scores) / len(scores)


def facts(name: str) -> dict[str, Any]:
    """What the manifest of a prior says of its training."""
    about = read_manifest(newest(find_prior(name)))
    steps, batch = about.get("step"), about.get("settings", {}).get("batch")
    crop = about.get("crop") or about.get("size")
    seen = steps * batch * crop**2 if steps and batch and isinstance(crop, int) else None
    pixels = about.get("pixels", seen)  # of several runs one after the other
    return {"steps": steps, "pixels_seen": pixels, "widths": about["config"].get("widths"),
            "blocks": about["config"].get("blocks"), "seconds_trained": about.get("seconds")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("priors", nargs="+")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--name", default="network_cost")
    given = parser.parse_args()
    torch.set_num_threads(1)
    priors = {name: load_prior(name) for name in given.priors}
    times: dict[str, list[float]] = {name: [] for name in priors}
    x = torch.rand(1, 3, SIDE, SIDE)
    for _ in range(given.rounds):
        for name, prior in priors.items():
            started = time.process_time()
            with torch.no_grad():
                prior.denoise(x, SIGMA)
            times[name].append(time.process_time() - started)
    images = crops(given.images, given.count, given.side) if given.images else None
    first = times[given.priors[0]]
    rows = []
    for name, prior in priors.items():
        ratios = [a / b for a, b in zip(times[name], first, strict=True)]
        rows.append({
            "network": Path(name).name,
            **facts(name),
            "parameters": sum(p.numel() for p in prior.network.parameters()),
            "macs_per_pixel": macs_per_pixel(prior.network),
            "seconds": median(times[name]),
            "time_ratio": median(ratios),
            "psnr": None if images is None else quality(prior, images),
        })
        print(rows[-1], flush=True)
    record = {"side": SIDE, "images": given.count, "crop": given.side, "machine": machine(),
              "rows": rows}
    (RESULTS / f"{given.name}.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [f"# {given.name.replace('_', ' ').capitalize()}", "",
             f"One pass at {SIDE} x {SIDE}, one thread, float32, as a ratio to the first network; "
             f"PSNR of one pass on {given.count} crops of {given.side} x {given.side}. "
             f"{machine()}.", "", "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for row in rows:
        shape = f"{row['network']}: {tuple(row['widths'] or ())}, {tuple(row['blocks'] or ())}"
        seen = f"{row['pixels_seen']:.2g}" if row["pixels_seen"] else ""
        score = "" if row["psnr"] is None else f"{row['psnr']:.2f}"
        cells = (shape, f"{row['parameters'] / 1e6:.2f} M", f"{row['macs_per_pixel'] / 1e3:.0f} k",
                 row["steps"], seen, f"{row['time_ratio']:.2f}", score)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    (RESULTS / f"{given.name}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
