"""Cost of ten restarts of eight images, relative to bare network calls with a batch of 80.

    python benchmarks/restarts.py [--device cpu] [--prior gan:digits] [--steps 20]

CSGM searches latents with Adam: a step decodes the batch of 80 and computes the gradient. The bare
calls do only that, as many times. Both run alternately, several times. The result is the median of
the ratios of their times. Writes `results/restarts.json`.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from genprior import load_prior, sample
from genprior.core.random_streams import Noise
from genprior.inverse.optimization.csgm import CSGM
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.base import Decoder

RESULTS = Path(__file__).parent / "results"
IMAGES, RESTARTS, LIMIT = 8, 10, 1.3


def by_hand(prior: Decoder, shape: torch.Size, calls: int) -> None:
    """Decodes a batch of 80 and computes the gradient, `calls` times."""
    z = torch.randn(prior.latent_shape(shape), device=next(prior.parameters()).device)
    for _ in range(calls):
        z = z.detach().requires_grad_()
        torch.autograd.grad(prior.decode(z, shape).square().sum(), z)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prior", default="gan:digits")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    prior = load_prior(given.prior, given.device)
    x: Tensor = sample(prior, IMAGES, (28, 28), seed=0, device=given.device).to(given.device)
    operator = Inpainting(random_keep((IMAGES, 1, *x.shape[2:]), 0.5).to(given.device))
    solver = CSGM(steps=given.steps, restarts=RESTARTS, optimiser="adam")
    shape = torch.Size((IMAGES * RESTARTS, *x.shape[1:]))
    ratios = []
    for number in range(given.rounds + 1):
        runs = {
            "solver": lambda: solver(operator.A(x), operator, prior, 0.0, Noise(0, range(IMAGES))),
            "hand": lambda: by_hand(prior, shape, given.steps),
        }
        took = {}
        for name in sorted(runs, reverse=bool(number % 2)):
            started = time.perf_counter()
            runs[name]()
            if given.device == "cuda":
                torch.cuda.synchronize()
            took[name] = time.perf_counter() - started
        ratios += [took["solver"] / took["hand"]] if number else []  # the first warms up
    record = {
        **vars(given), "images": IMAGES, "restarts": RESTARTS, "limit": LIMIT,
        "ratio": statistics.median(ratios), "ratios": ratios, "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if given.device == "cuda" else
        f"{platform.machine()}, {torch.get_num_threads()} threads",
    }
    (RESULTS / "restarts.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"time of {RESTARTS} restarts x {IMAGES} images / time of calls with a batch of "
          f"{RESTARTS * IMAGES}: {record['ratio']:.3f}; limit {LIMIT}")


if __name__ == "__main__":
    main()
