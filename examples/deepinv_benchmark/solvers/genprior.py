"""genprior in the leaderboards of deepinv: copy this file to solvers/ of one of its benchmarks.

    pip install genprior git+https://github.com/deepinv/benchmarks.git
    benchopt run deepinv_bench/benchmarks/div2k_gaussian_deblurring -s genprior

or without this file: `run_benchmark(genprior.to_deepinv("hqs"), "div2k_gaussian_deblurring")`.
"""

from typing import Any

import torch
from benchopt import BaseSolver

import genprior


class Solver(BaseSolver):
    """The default solver and a sampler, whose answer is the mean of its samples."""

    name = "genprior"
    parameters = {"solver, samples": [("auto", 1), ("moment-matched", 7)], "prior": ["ddpm"]}

    def set_objective(self, train_dataset: Any = None, physics: Any = None) -> None:
        self.model = genprior.to_deepinv(self.solver, self.prior, samples=self.samples)
        self.model.device = "cuda" if torch.cuda.is_available() else "cpu"

    def run(self, _: Any) -> None:
        """Does nothing: the benchmark calls the model."""

    def get_result(self) -> dict[str, Any]:
        return {"model": self.model}
