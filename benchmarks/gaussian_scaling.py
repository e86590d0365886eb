"""CPU time of an exact posterior sample in colour inpainting, by the size of the image.

    python benchmarks/gaussian_scaling.py [--largest 2048] [--threads 1]

The image is a float32 colour texture without noise; 30 % of its pixels are missing, in squares.
For small images the script also runs the dense solution in float64, a Cholesky factor of the
covariance of the known pixels. N is the number of pixels of the image.

The time is the user and system time of the process. With glibc, set MALLOC_MMAP_MAX_=0
MALLOC_TRIM_THRESHOLD_=100000000000. Otherwise every tensor above 32 MB takes new memory from the
system, which is two thirds of the time at size 2048.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from genprior.core.linalg import solve
from genprior.core.random_streams import Noise
from genprior.inverse.gaussian import linear_mmse
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.operators.inpainting import Inpainting
from genprior.priors.texture import Texture

RESULTS = Path(__file__).parent / "results" / "gaussian_scaling.json"
SIZES = (128, 256, 512, 1024, 2048)
DENSE_SIZES = (8, 16, 24, 32)
MISSING = 0.3


def exemplar() -> Tensor:
    """Returns a photograph of stained tissue, shape (1, 3, 512, 512)."""
    from skimage.data import immunohistochemistry

    return torch.from_numpy(immunohistochemistry()).permute(2, 0, 1)[None] / 255


def problem(size: int) -> tuple[Tensor, Tensor]:
    """Returns a texture of the given size, and its mask: 1 where a pixel is known."""
    generator = torch.Generator().manual_seed(size)
    prior, shape = Texture.from_exemplar(exemplar()[..., :size, :size]), (1, 3, size, size)
    z = torch.randn(prior.latent_shape(torch.Size(shape)), generator=generator)
    keep, side = torch.ones(1, 1, size, size), max(size // 16, 1)
    while keep.mean() > 1 - MISSING:
        i, j = torch.randint(0, size - side + 1, (2,), generator=generator).tolist()
        keep[..., i : i + side, j : j + side] = 0
    return prior.decode(z, torch.Size(shape)).clamp(0, 1), keep


def iterative(size: int) -> dict:
    """Estimates the texture from the known part, then draws one posterior sample."""
    x, keep = problem(size)
    operator, solves = Inpainting(keep), []

    def recorded(matrix: Callable[[Tensor], Tensor], b: Tensor, **options: object) -> Tensor:
        products = []
        solution = solve(lambda v: (products.append(v.shape), matrix(v))[1], b, **options)
        residual = (b - matrix(solution)).norm() / b.norm()
        solves.append({"iterations": len(products), "residual": residual.item()})
        return solution

    y = operator.A(x)
    with patch.object(linear_mmse, "solve", recorded):
        start = time.process_time()
        prior = Texture.from_exemplar(y, keep)
        GaussianPosterior()(y, operator, prior, 0.0, Noise(0, [0]))
        seconds = time.process_time() - start
    return {"size": size, "seconds": seconds, **solves[-1]}


def dense(size: int) -> dict:
    """Computes the posterior mean with dense matrices, and compares it with the solver."""
    x, keep = problem(size)
    x = x.double()
    prior = Texture.from_exemplar(x, keep)
    start = time.process_time()
    unit = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape[1:])
    S = prior.cov(unit).flatten(1)
    known = keep.expand_as(x).flatten() > 0
    r = (x - prior.mean(x.shape)).flatten()[known]
    factor = torch.linalg.cholesky(S[known][:, known])
    mean = S[:, known] @ torch.cholesky_solve(r[:, None], factor)
    seconds = time.process_time() - start
    y = Inpainting(keep).A(x)
    ours = GaussianPosterior("mean", tolerance=1e-12)(y, Inpainting(keep), prior, 0.0, None)
    error = (ours - prior.mean(x.shape)).flatten() - mean[:, 0]
    return {"size": size, "seconds": seconds, "difference": error.abs().max().item()}


def main() -> None:
    """Measures all sizes, prints a table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows, dense_rows = [], []
    for size in DENSE_SIZES:
        dense_rows.append(dense(size))
        print(
            "dense   {size:5d}  {seconds:8.2f} s  differs by {difference:.0e}".format(
                **dense_rows[-1]
            )
        )
    iterative(SIZES[0])  # warm-up: the first FFT of a process is slow
    for size in SIZES:
        if size <= options.largest:
            row = iterative(size)
            row["ns_per_n_log_n"] = 1e9 * row["seconds"] / (size**2 * math.log2(size**2))
            rows.append(row)
            print(
                "sample  {size:5d}  {seconds:8.2f} s  {ns_per_n_log_n:6.0f} ns per N log2 N  "
                "{iterations} iterations, residual {residual:.0e}".format(**row)
            )
    about = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} thread(s)",
        "torch": torch.__version__,
        "malloc": {k: v for k, v in os.environ.items() if k.startswith("MALLOC_")},
        "missing": MISSING,
        "dense": dense_rows,
        "sample": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
