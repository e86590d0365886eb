"""Plug-and-play diffusion: each denoised image is pulled to the data, then noised again.

    x_hat = argmin_u ||A u - y||^2 + rho ||u - D(x)||^2,   rho = lambda sigma^2 / sigma_t^2
    e = (x - x_hat) / sigma_t
    x_next = x_hat + sigma_next (sqrt(1 - zeta) e + sqrt(zeta) n)

References:
    Denoising Diffusion Models for Plug-and-Play Image Restoration, Zhu et al., 2023.

Differs from the authors' code:
    1. Noise-free data are met exactly at every step (rho = 0, the limit); theirs puts a
        floor of 0.001 under sigma.
    2. The levels are placed by noise, not on a quadratic grid of the training steps.
    3. lambda is that of the paper, where all is in one unit. In their code sigma is of [0, 1] and
        sigma_t of [-1, 1]: theirs is 4 times as large for the same.
    4. The last network evaluation is returned; theirs is as well, in deepinv it is lost.
"""

from dataclasses import dataclass

from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import setting
from genprior.inverse.diffusion.sampler import DiffusionSolver, images_of, run_levels
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class DiffPIR(DiffusionSolver):
    """Plug-and-play diffusion.

    Arguments:
        steps: Network evaluations.
        coupling: lambda of the paper, > 0; the larger, the less the data pull.
        renewal: zeta of the paper in [0, 1]: share of the noise variance drawn anew.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples that look natural, cheap; std is only rough"

    coupling: float = setting(1.0, gt=0)
    stochasticity: float = setting(0.3, ge=0, le=1)

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        variance = noise_std**2
        kept, renewed = (1 - self.stochasticity) ** 0.5, self.stochasticity**0.5

        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            x_hat = prior.denoise(x, sigma)
            if noise is None and self.steps > 1:
                return x_hat
            x_hat = operator.prox(x_hat, y, self.coupling * variance / sigma**2)
            if noise is None:  # a single step has to see the data
                return x_hat
            e = (x - x_hat) / sigma
            return x_hat + sigma_next * (kept * e + renewed * noise)

        return run_levels(images_of(y, operator), self.sigmas, generator, step)
