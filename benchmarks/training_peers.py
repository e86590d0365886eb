"""Training speed of `fit` relative to other libraries, with the same network.

    pip install --no-deps --target PEERS normflows denoising-diffusion-pytorch ema-pytorch \
        pytorch-fid accelerate huggingface_hub httpx2 httpcore2 truststore
    export MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
    PYTHONPATH=.:PEERS OMP_NUM_THREADS=1 python benchmarks/training_peers.py [--steps 20]

The malloc settings (glibc) keep freed memory in the process. Otherwise one of the two loops, by
chance, returns pages to the system and takes them again in every step, which costs up to 8 % of
its time.

glow   a multi-scale Glow of normflows with the networks, depth, width and squeezes of genprior,
       trained as in the examples of normflows. (The Glow of genprior also computes the
       distribution of the channels that are split off.)
ddpm   the UNet of genprior in the GaussianDiffusion and the Trainer of
       denoising-diffusion-pytorch.

The two loops do one step alternately, on the same images in memory, so that a busy machine slows
both equally. The results are the medians of the ratios of neighbouring steps, of wall time and of
the processor time of the thread. `fit` also checks the losses, writes a log, clips gradients and
updates a moving average, which the examples of normflows do not. Writes
`results/training_peers.json`.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from genprior.priors.ddpm import DDPM
from genprior.priors.glow import Glow
from genprior.training.loop import Settings, fit

RESULTS = Path(__file__).parent / "results"
WARM = 3
PACKAGES = {"glow": "normflows", "ddpm": "denoising-diffusion-pytorch"}
FLOW = {"levels": 3, "depth": 16, "width": 96}
UNET = {"widths": [48, 96, 160, 224], "blocks": [2, 2, 2, 4]}
Loop = Callable[[Callable[[], None]], None]


class Turns:
    """Scheduler that runs two training loops step by step alternately, and times the steps."""

    def __init__(self) -> None:
        self.gates = [Semaphore(1), Semaphore(0)]
        self.seconds: list[list[np.ndarray]] = [[], []]

    def run(self, loops: list[Loop]) -> np.ndarray:
        """Runs both loops and returns the seconds of their steps, shape (2, steps, 2).

        The last axis is wall time and processor time.
        """
        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(self._run, side, loop) for side, loop in enumerate(loops)]:
                done.result()
        count = min(map(len, self.seconds))
        return np.array([times[:count] for times in self.seconds])

    def _run(self, side: int, loop: Loop) -> None:
        own, other = self.gates[side], self.gates[1 - side]
        own.acquire()
        started = None

        def between_steps() -> None:
            nonlocal started
            if started is not None:
                self.seconds[side].append(_now() - started)
            other.release()
            own.acquire()
            started = _now()

        try:
            loop(between_steps)
        finally:
            for _ in range(10**4):  # the other loop continues alone
                other.release()


def _now() -> np.ndarray:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.thread_time()])


class Same:
    """Data set that returns the same images in every batch."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def batch(self, number: int, count: int, rows: slice | None = None) -> Tensor:
        return self.x[rows or slice(None)]


def ours(name: str, prior: nn.Module, x: Tensor, steps: int, dtype: str) -> Loop:
    """Returns the training loop of genprior, `fit`."""

    def loop(between_steps: Callable[[], None]) -> None:
        settings = Settings(steps=steps, batch=len(x), dtype=dtype, save_minutes=1e9, lr=1e-4)
        with tempfile.TemporaryDirectory() as folder:
            fit(name, prior, Same(x), Path(folder), settings, report=lambda *_: between_steps())

    return loop


def normflows_glow(x: Tensor, steps: int, dtype: str) -> tuple[nn.Module, Loop]:
    """Returns the Glow of normflows and the training loop of its examples."""
    import normflows as nf

    levels, depth, width = FLOW.values()
    bases, flows, merges = [], [], []
    for i in range(levels):
        channels = x.shape[1] * 2 ** (levels + 1 - i)
        blocks = [nf.flows.GlowBlock(channels, width, scale_map="exp") for _ in range(depth)]
        flows.append([*blocks, nf.flows.Squeeze()])
        if i:
            merges.append(nf.flows.Merge())
        squeezed = levels - i if i else levels
        split_off = x.shape[1] * 2 ** (levels - i if i else levels + 1)
        bases.append(nf.distributions.GlowBase((split_off, *(n >> squeezed for n in x.shape[2:]))))
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False).to(x.device)

    def loop(between_steps: Callable[[], None]) -> None:
        optimizer = torch.optim.Adamax(model.parameters(), 1e-4)
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype != "float32"):
                loss = model.forward_kld(x - 0.5 + torch.rand_like(x) / 255)
            loss.backward()
            optimizer.step()
            between_steps()

    return model, loop


class Adapter(nn.Module):
    """Adapter of the UNet of genprior to the interface of denoising-diffusion-pytorch."""

    self_condition, random_or_learned_sinusoidal_cond = False, False

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels, self.out_dim = network, channels, channels

    def forward(self, x: Tensor, t: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
        """Returns the output of the network at steps t, shape (B,)."""
        return self.network(x, t / 1000)


def lucidrains_ddpm(x: Tensor, steps: int, dtype: str) -> tuple[nn.Module, Loop]:
    """Returns the UNet of genprior and the Trainer of denoising-diffusion-pytorch as a loop."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer

    network = DDPM(**UNET).network
    diffusion = GaussianDiffusion(Adapter(network, x.shape[1]), image_size=x.shape[-1])

    def loop(between_steps: Callable[[], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(100):
                Image.new("RGB", x.shape[-2:]).save(Path(folder) / f"{number}.png")
            trainer = Trainer(
                diffusion.to(x.device), folder, train_batch_size=len(x), calculate_fid=False,
                train_num_steps=steps, save_and_sample_every=10**9, results_folder=folder,
                amp=dtype != "float32", mixed_precision_type="bf16",
            )
            trainer.dl = _repeated(x, between_steps)
            trainer.train()

    return network, loop


def _repeated(x: Tensor, between_steps: Callable[[], None]) -> Iterator[Tensor]:
    while True:
        between_steps()
        yield x


def compare(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Returns the record of a comparison between a step of `fit` and a step of a peer."""
    torch.manual_seed(0)
    steps = given.steps + WARM + 1
    x = torch.rand(given.batch, 3, given.crop, given.crop, device=given.device)
    prior = (Glow(**FLOW) if name == "glow" else DDPM(**UNET)).to(given.device)
    make = normflows_glow if name == "glow" else lucidrains_ddpm
    peer, loop = make(x, steps, given.dtype)
    seconds = Turns().run([ours(name, prior, x, steps, given.dtype), loop])[:, WARM:]
    ratios = np.median(seconds[0] / seconds[1], axis=0).tolist()
    print("{}: {} {:.3f} of wall time, {:.3f} of processor time".format(
        name, f"fit / {PACKAGES[name]}", *ratios), flush=True)
    return {
        "peer": f"{PACKAGES[name]} {importlib.metadata.version(PACKAGES[name])}",
        "wall_ratio": ratios[0],
        "processor_ratio": ratios[1],
        "smallest_seconds": seconds.min(axis=1)[:, 1].tolist(),
        "median_seconds": np.median(seconds, axis=1).tolist(),
        "parameters": [sum(p.numel() for p in part.parameters()) for part in (prior, peer)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--only", choices=list(PACKAGES))
    given = parser.parse_args()
    os.environ["ACCELERATE_USE_CPU"] = str(given.device == "cpu").lower()
    found = {}
    for name, package in PACKAGES.items():
        if given.only in (None, name):
            try:
                found[name] = compare(name, given)
            except ModuleNotFoundError as error:
                print(f"{name}: left out, since {package} is not installed ({error}): the first "
                      f"lines of this file say how to install it")
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    kept = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    record = {
        **vars(given),
        "malloc": kept,
        **found,
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if given.device == "cuda" else machine,
    }
    if found and not given.only:
        (RESULTS / "training_peers.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
