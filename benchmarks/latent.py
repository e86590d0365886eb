"""Bias and spread of latent solvers on a linear autoencoder with Gaussian latents.

    python benchmarks/latent.py [OUTPUT]

The posterior is exact there. Expected: about two minutes on a CPU; the table is
benchmarks/results/latent.md.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from contracts import dense  # noqa: E402
from latents import LinearLatents  # noqa: E402

from genprior.core.random_streams import Noise  # noqa: E402
from genprior.inverse.base import Solver  # noqa: E402
from genprior.inverse.latent.daps import LatentDAPS  # noqa: E402
from genprior.inverse.latent.psld import PSLD  # noqa: E402
from genprior.inverse.latent.resample import ReSample  # noqa: E402
from genprior.operators.inpainting import Inpainting  # noqa: E402
from genprior.operators.masks import random_keep  # noqa: E402

SHAPE, LATENT, COUNT = (1, 8, 8), (2, 4, 4), 200
OPERATOR = Inpainting(random_keep((1, 1, 8, 8), 0.5))
SOLVERS: dict[str, Solver] = {
    "`psld`, published": PSLD(),
    "`resample`, published": ReSample(),
    "`latent-daps`, published": LatentDAPS(),
    "`latent-daps`, `tau=None`, rate 1e-4, 100 steps a level":
        LatentDAPS(tau=None, rate=1e-4, langevin_steps=100),
}


class OneStream(Noise):
    """Noise of all samples from one generator, which is faster than a stream for each."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


def measure(solver: Solver, noise_std: float) -> tuple[float, float]:
    """Returns bias of the mean in posterior standard deviations, and the ratio of the spreads."""
    prior, operator = LinearLatents(SHAPE, LATENT).requires_grad_(False), OPERATOR
    one = torch.Size((1, *SHAPE))
    x = prior.decode(Noise(7, [0]).normal(torch.zeros(1, *LATENT).double()) * prior.c.reshape(
        1, *LATENT).sqrt() + prior.m.reshape(1, *LATENT), one)
    y = operator.A(x)
    y = y + noise_std * operator.mask_unmeasured(Noise(8, [0]).normal(y))
    A = dense(operator, torch.zeros(one).double())
    mean, cov = prior.posterior(operator.mask_unmeasured(y).flatten(), A, noise_std)
    many = y.expand(COUNT, *y.shape[1:]).contiguous()
    samples = solver(many, operator, prior, noise_std, OneStream()).flatten(1)
    spread = cov.diag().mean().sqrt()
    bias = (samples.mean(dim=0) - mean).square().mean().sqrt() / spread
    return bias.item(), (samples.var(dim=0).mean().sqrt() / spread).item()


def main(output: Path) -> None:
    """Writes the table."""
    rows = ["# Latent solvers beside the exact posterior", "",
            f"Linear autoencoder of {SHAPE[1]} x {SHAPE[2]} pixels with 32 Gaussian latents, "
            f"half of the pixels measured, {COUNT} samples (`benchmarks/latent.py`). Bias: RMS "
            "distance of their mean from the posterior mean, in posterior standard deviations "
            "(0.07 is the error of 200 samples). Spread: their standard deviation over that of "
            "the posterior.",
            "", "| solver | noise | bias | spread |", "|---|---|---|---|"]
    for title, solver in SOLVERS.items():
        for noise_std in (0.025, 0.1):
            bias, spread = measure(solver, noise_std)
            rows.append(f"| {title} | {noise_std} | {bias:.2f} | {spread:.2f} |")
            print(rows[-1], flush=True)
    output.write_text("\n".join([*rows, ""]))


if __name__ == "__main__":
    default = Path(__file__).parent / "results" / "latent.md"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
