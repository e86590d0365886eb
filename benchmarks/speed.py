"""Run time of DiffPIR in genprior and in deepinv, with the same network and evaluations.

    python benchmarks/speed.py --device cpu

Both run the same denoiser on the same noise-free inpainting (50 % missing, batch 4, 256x256,
float32) for the same number of evaluations. The result is the ratio of their times. Prints JSON;
the output of a run is in `results/speed.json`.
"""

import argparse
import json
import platform
import statistics
import time

import deepinv
import torch

from genprior.api.restoration import load_prior, restore
from genprior.inverse.diffusion.diffpir import DiffPIR
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep


def seconds(call: object, device: str, repeats: int) -> float:
    """Returns the median time of a call after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main(device: str = "cpu", steps: int = 10, size: int = 256, repeats: int = 3) -> dict:
    """Measures both libraries and returns the record."""
    torch.manual_seed(0)
    prior = load_prior("ddpm", device)
    x = torch.rand(4, 3, size, size, device=device)
    keep = random_keep(x.shape, 0.5).to(device)
    y = keep * x
    operator = Inpainting(keep)
    ours = DiffPIR(steps=steps)
    physics = deepinv.physics.Inpainting(
        img_size=x.shape[1:], mask=keep.float(), device=device,
        noise_model=deepinv.physics.GaussianNoise(0.01),
    )

    class Denoiser(torch.nn.Module):
        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return prior.denoise(x, torch.as_tensor(sigma).float().flatten()[:1].to(x))

    theirs = deepinv.sampling.DiffPIR(
        Denoiser(), deepinv.optim.data_fidelity.L2(), max_iter=steps, device=device
    )
    with torch.no_grad():
        t_theirs = seconds(lambda: theirs(y, physics), device, repeats)
    t_ours = seconds(
        lambda: restore(y, operator, prior, ours, noise_std=0.01, dtype="float32"),
        device, repeats,
    )
    return {
        "steps": steps, "size": size, "device": device, "genprior_s": round(t_ours, 3),
        "deepinv_s": round(t_theirs, 3), "ratio": round(t_ours / t_theirs, 3),
        "versions": {"torch": torch.__version__, "deepinv": deepinv.__version__},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
                   f"{torch.cuda.get_device_name() if device == 'cuda' else 'no GPU'}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    print(json.dumps(main(parser.parse_args().device), indent=1))
