"""Half-quadratic splitting with a denoiser (DPIR): the best point estimate per evaluation.

    u = argmin_u ||A u - y||^2 + rho_k ||u - x||^2,   rho_k = lambda sigma^2 / sigma_k^2
    x = D(u, sigma_k),                                sigma_k decreasing

References:
    Plug-and-Play Image Restoration with Deep Denoiser Prior, Zhang et al., 2021.

Differs from the authors' code:
    1. The start is the smoothest image that explains the data, for every operator alike.
    2. Images are flipped and turned in rotation, as theirs, also for inpainting.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.inverse.base import Solver
from genprior.inverse.smooth import smooth_start
from genprior.inverse.symmetry import turn, turn_back
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

NOISE_FLOOR = 0.001


@dataclass(frozen=True)
class HQS(Solver):
    """Half-quadratic splitting with a denoiser.

    Arguments:
        steps: Network evaluations.
        coupling: lambda of the paper, > 0.
        sigma_max: First noise level of the denoiser, in image units.
        sigma_min: Last one; never below `noise_std` times `stop`.
        stop: The last level is at least this multiple of the noise in the data.
    """

    needs = Denoiser
    stochastic = False
    summary = "one picture, highest PSNR, deterministic; 1 forward a step"

    steps: int = 24
    coupling: float = 0.23
    sigma_max: float = 49 / 255
    sigma_min: float = 2 / 255
    stop: float = 0.0

    @property
    def nfe(self) -> int:
        return self.steps

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        with torch.no_grad():
            x = smooth_start(y, operator)
            last = (self.stop * noise_std).clamp(self.sigma_min, self.sigma_max)
            variance = noise_std.clamp(min=NOISE_FLOOR) ** 2
            for k in range(self.steps):
                done = k / max(self.steps - 1, 1)
                sigma = self.sigma_max * (last / self.sigma_max) ** done
                u = operator.prox(x, y, self.coupling * variance / sigma**2)
                x = turn_back(prior.denoise(turn(u, k), sigma), k)
        return x
