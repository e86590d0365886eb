"""Denoising is what a denoiser does: the posterior mean in one evaluation.

    y = x + sigma n,    x = E[x | y] = D(y, sigma)

Averaged over the 8 flips and quarter turns of the image where that is asked for.

References:
    An Empirical Bayes Approach to Statistics, Robbins, 1956 (Tweedie's formula).
    Seven Ways to Improve Example-Based Single Image Super Resolution, Timofte et al., 2016
        (self-ensemble).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.inverse.base import Solver
from genprior.inverse.symmetry import turn, turn_back
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class PosteriorMean(Solver):
    """Posterior mean of a noisy image.

    Arguments:
        turns: Number of flips and quarter turns that are averaged, 1 to 8.
    """

    needs = Denoiser
    stochastic = False
    summary = "one picture, denoising only: E[x | y] averaged over flips and turns"

    turns: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.turns <= 8:
            raise ValueError(f"turns must be between 1 and 8, got {self.turns}")

    @property
    def nfe(self) -> int:
        return self.turns

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        if not operator.is_identity:
            raise ValueError(
                "solver 'posterior-mean' only denoises: choose another for this measurement"
            )
        sigma = noise_std.clamp(min=1e-4)
        with torch.no_grad():
            views = [turn_back(prior.denoise(turn(y, k), sigma), k) for k in range(self.turns)]
        x = torch.stack(views).mean(dim=0)
        return torch.where(noise_std.reshape(-1, 1, 1, 1) > 0, x, y)
