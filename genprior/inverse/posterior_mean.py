"""What a denoiser is asked for is the posterior mean: of noisy images, and of those with holes.

    y = keep (x + sigma n),    x = E[x | y] = D(y, sigma / keep)

The noise level is infinite where nothing is kept. Averaged over the 8 flips and quarter turns
of the image where that is asked for.

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
from genprior.priors.base import Denoiser, per_image

LEAST = 1e-4


@dataclass(frozen=True)
class PosteriorMean(Solver):
    """Posterior mean of an image that is noisy, or has holes if the prior knows of them.

    Arguments:
        turns: Number of flips and quarter turns that are averaged, 1 to 8.
    """

    needs = Denoiser
    stochastic = False
    summary = "one picture, denoising and inpainting: E[x | y] averaged over flips and turns"

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
        if not operator.whole_pixels:
            raise ValueError(
                "solver 'posterior-mean' only denoises and fills holes: choose another for this "
                "measurement"
            )
        if not (operator.is_identity or sees_holes(prior, operator)):
            raise ValueError(
                f"solver 'posterior-mean' only denoises with {type(prior).__name__}, which takes "
                f"one noise level per image: choose another solver, or a prior that was trained "
                f"on images with holes"
            )
        with torch.no_grad():
            return mean_of_views(y, operator, prior, noise_std, self.turns)


def sees_holes(prior: Denoiser, operator: Operator) -> bool:
    """Whether a measurement is an image with holes of which the prior knows."""
    return prior.per_pixel and operator.whole_pixels and not operator.is_identity


def mean_of_views(
    y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, turns: int
) -> Tensor:
    """The posterior mean of noisy images, or of those with holes, averaged over turns."""
    level = per_image(noise_std, y)
    known = operator.observed(torch.ones_like(y))[:, :1] > 0
    infinite = torch.where(known, level, torch.inf)

    def view(k: int) -> Tensor:
        sigma = noise_std.clamp(min=LEAST) if operator.is_identity else turn(infinite, k)
        return turn_back(prior.denoise(turn(y, k), sigma), k)

    x = torch.stack([view(k) for k in range(turns)]).mean(dim=0)
    return torch.where(known & (level == 0), y, x)
