"""Denoising diffusion models for plug-and-play image restoration (DiffPIR).

Each denoised image is fitted to the data by a proximal step, then noise is added.

    x_hat = argmin_u ||A u - y||^2 + rho ||u - D(x)||^2,   rho = lambda sigma^2 / sigma_t^2
    e = (x - x_hat) / sigma_t
    x_next = x_hat + sigma_next (sqrt(1 - zeta) e + sqrt(zeta) n)

References:
    Denoising Diffusion Models for Plug-and-Play Image Restoration, Zhu et al., 2023.

Differs from the authors' code:
    1. Noise-free data are matched exactly at every step (rho = 0, the limit); the authors' code
        does not let sigma fall below 0.001.
    2. The levels are spaced by noise, not on a quadratic grid of the training steps.
    3. lambda is that of the paper, where sigma and sigma_t are in one unit. In the authors' code
        sigma is in units of [0, 1] and sigma_t of [-1, 1]: their lambda is 4 times as large for
        the same rho.
    4. The last network evaluation is returned, as in the authors' code; deepinv discards it.
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
        coupling: lambda of the paper, > 0; the larger it is, the less weight the data have.
        stochasticity: zeta of the paper in [0, 1]: share of the noise variance drawn anew.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Denoiser
    stochastic = True
    uses = "prox"
    summary = "samples that look natural, cheap; std is only rough"

    coupling: float = setting(1.0, gt=0)
    stochasticity: float = setting(0.3, ge=0, le=1)

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        variance, fit = noise_std**2, operator.proximal(y)
        kept, renewed = (1 - self.stochasticity) ** 0.5, self.stochasticity**0.5

        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            x_hat = prior.denoise(x, sigma)
            if noise is None and self.steps > 1:
                return x_hat
            x_hat = fit(x_hat, self.coupling * variance / sigma**2)
            if noise is None:  # a single step must use the data
                return x_hat
            e = (x - x_hat) / sigma
            return x_hat + sigma_next * (kept * e + renewed * noise)

        return run_levels(images_of(y, operator), self.sigmas, generator, step)
