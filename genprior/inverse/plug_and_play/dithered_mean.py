"""Restoration of rounded images, such as JPEG, by denoising with added noise (dither).

    x_hat = mean over k of D(y + a n_k, sigma),    x = E[u | u in the cells of y],  u ~ x_hat + s n

    a = alpha e^p,    sigma = beta a,    s = gamma sigma

with the standard deviation e of the rounding error. A denoiser takes blocks and rings of a JPEG
for details, and keeps them. With noise on top the error of y is nearly white, and the denoiser
removes both. The mean over draws in pairs of opposite signs cancels most of what the noise itself
changed. The cells then undo what cannot have been.

The settings were chosen on 80 x 80 crops of 8 training photos. At quality 10 the gain was 0.87 dB
for one evaluation without added noise, 1.29 dB for 4 with noise, and 1.36 dB with the cells. More
iterations of half-quadratic splitting, with the projection onto the cells as proximal map, lost
0.1 to 0.6 dB: each projection brings the blocks back.

References:
    Dither Signals and Their Effect on Quantization Noise, Schuchman, 1964.
    An Empirical Bayes Approach to Statistics, Robbins, 1956 (D as the posterior mean).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.core.symmetries import turn, turn_back
from genprior.inverse.base import Solver, setting
from genprior.inverse.self_ensemble import MIN_NOISE_STD
from genprior.operators.base import Operator, Quantiser
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class DitheredMean(Solver):
    """Mean of denoised images with added noise, inside the cells of the measurement.

    Arguments:
        steps: Network evaluations; even numbers are best, as noise is drawn in pairs.
        strength: alpha.
        power: p.
        excess: beta, from 1 to 10.
        spread: gamma; 0 projects onto the cells.
    """

    needs = Denoiser
    stochastic = False
    uses = "prox"
    summary = "one image, JPEG only: denoises with added noise, keeps to the coefficients"

    steps: int = setting(4, ge=1)
    strength: float = setting(0.36, gt=0)
    power: float = setting(0.55, ge=0)
    excess: float = setting(1.2, ge=1, le=10)
    spread: float = setting(0.5, ge=0)

    @property
    def nfe(self) -> int:
        return self.steps

    def check_compatible(self, operator: Operator, prior: object, y: Tensor) -> None:
        super().check_compatible(operator, prior, y)
        if not isinstance(operator, Quantiser):
            raise SettingError(
                "solver 'dithered-mean' only restores rounded images, such as JPEG: choose "
                "another solver for this measurement"
            )

    def solve(
        self, y: Tensor, operator: Quantiser, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        added = self.strength * operator.error_std(y) ** self.power
        sigma = (self.excess * added).clamp(min=MIN_NOISE_STD)
        symmetries = prior.symmetries
        total = torch.zeros_like(y)
        with torch.no_grad():
            for k in range(self.steps):
                if k % 2 == 0:
                    noise = per_image(added, y) * generator.normal(y)
                x = y + noise if k % 2 == 0 else y - noise
                symmetry = symmetries[k % len(symmetries)]
                total += turn_back(prior.denoise(turn(x, symmetry), sigma), symmetry)
            return operator.conditional_mean(total / self.steps, y, self.spread * sigma)
