"""Training speed of `fit` relative to a minimal loop, with the same network and data.

    python benchmarks/training.py [--device cpu] [--crop 64] [--batch 16] [--steps 40]

The minimal loop does what every training needs: prefetching a batch, forward and backward pass,
gradient clipping, AdamW, moving average of the weights. `fit` adds a log, exact resume, checks and
schedules. Both run alternately, several times. The results are the medians of the ratios of wall
time and of processor time; on a busy machine only the second is reliable. Writes
`results/training.json`.
"""

import argparse
import json
import platform
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from genprior.core.random_streams import Noise
from genprior.priors.ddpm import DDPM
from genprior.training.crops import Crops
from genprior.training.loop import Settings, fit

RESULTS = Path(__file__).parent / "results"
LIMIT = 1.03
WARM = 3


def images(count: int = 8, size: int = 256) -> list[np.ndarray]:
    """Returns images of noise in blocks of 8 x 8 pixels."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, size // 8, size // 8, 3), dtype=np.uint8)
    return [image.repeat(8, axis=0).repeat(8, axis=1) for image in coarse]


def by_hand(prior: DDPM, data: Crops, steps: int, batch: int, dtype: str) -> np.ndarray:
    """Returns the seconds per step of the minimal loop: wall time and processor time."""
    device = next(prior.parameters()).device
    prior.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        prior.parameters(), 5e-4, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    average = [p.detach().clone() for p in prior.parameters()]
    noise = Noise(0, range(batch))
    low = dtype != "float32"
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(data.batch, 0, batch)
        started = _now(device)
        for step in range(-WARM, steps):
            if step == 0:
                started = _now(device)
            x, ahead = ahead.result(), reader.submit(data.batch, step + WARM + 1, batch)
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                loss = prior.losses(x.to(device), noise)["network"]
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
            optimizer.step()
            torch._foreach_lerp_(average, [p.detach() for p in prior.parameters()], 0.001)
        return (_now(device) - started) / steps


def by_fit(prior: DDPM, data: Crops, steps: int, batch: int, dtype: str) -> np.ndarray:
    """Returns the seconds per step of `fit`: wall time and processor time."""
    device = next(prior.parameters()).device
    times = {}

    def report(step: int, done: float, loss: float) -> None:
        if step in (WARM, WARM + steps):
            times[step] = _now(device)

    settings = Settings(steps=WARM + steps, batch=batch, dtype=dtype, save_minutes=1e9)
    with tempfile.TemporaryDirectory() as folder:
        fit("ddpm", prior, data, Path(folder), settings, report=report)
    return (times[WARM + steps] - times[WARM]) / steps


def _now(device: torch.device) -> np.ndarray:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return np.array([time.perf_counter(), time.process_time()])


def network(device: str, widths: list[int]) -> DDPM:
    """Returns a network with the same weights at every call."""
    torch.manual_seed(0)
    return DDPM(widths=widths, blocks=[2] * len(widths)).to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--widths", type=json.loads, default=[48, 96, 160])
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    given = parser.parse_args()
    data = Crops([images()], given.crop)
    size = (given.steps, given.batch, given.dtype)
    ratios, seconds = [], []
    for number in range(given.rounds):
        order = (by_hand, by_fit) if number % 2 else (by_fit, by_hand)
        took = {run: run(network(given.device, given.widths), data, *size) for run in order}
        ratios.append(took[by_fit] / took[by_hand])
        seconds.append([took[by_hand].tolist(), took[by_fit].tolist()])
        print("fit / minimal loop: wall {:.3f}, processor {:.3f}".format(*ratios[-1]), flush=True)
    wall, processor = np.median(ratios, axis=0).tolist()
    record = {
        **vars(given),
        "wall_ratio": wall,
        "processor_ratio": processor,
        "limit": LIMIT,
        "seconds_by_hand_and_by_fit": seconds,
        "parameters": sum(p.numel() for p in network("cpu", given.widths).parameters()),
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if given.device == "cuda" else
        f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    (RESULTS / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"medians: wall {wall:.3f}, processor {processor:.3f}; limit {LIMIT}")


if __name__ == "__main__":
    main()
