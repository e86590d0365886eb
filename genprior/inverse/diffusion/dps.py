"""Diffusion posterior sampling (DPS): every reverse step is followed by a gradient step.

    x_next = DDPM(x, D(x)) - zeta grad_x ||y - A(D(x))||_2

References:
    Diffusion Posterior Sampling for General Noisy Inverse Problems, Chung et al., 2023.

Differs from the authors' code:
    1. The norm is taken per image; the authors' is over the batch.
    2. `strength` is the authors' zeta on 256x256 colour images with as many measurements, 196608.
        For m measurements it is scaled by sqrt(m / 196608), so that the gradient step per measured
        number does not depend on the size of the image. The authors' zeta is not scaled: on images
        of that size with few measurements their step is larger (4 times in super-resolution by 4).
    3. The DDPM posterior variance is fixed, and D(x) is not clipped to the image range.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.core.schedules import Spacing, reverse_step
from genprior.inverse.base import setting
from genprior.inverse.diffusion.sampler import (
    PRIOR_VAR,
    DiffusionSolver,
    denoise_with_vjp,
    images_of,
    run_levels,
)
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

AUTHORS_MEASUREMENTS = 3 * 256 * 256


@dataclass(frozen=True)
class DPS(DiffusionSolver):
    """Diffusion posterior sampling.

    Arguments:
        steps: Network evaluations, each with a backward pass; 1000 in the paper.
        strength: Step size zeta of the paper, >= 0.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.
    """

    needs = Denoiser
    stochastic = True
    uses = "gradient"
    summary = "samples, the published step size for whole images; for comparisons"

    steps: int = setting(1000, ge=1)
    strength: float = setting(1.0, ge=0)
    spacing: Spacing = field(default="ddpm", kw_only=True)

    @property
    def jacobian_products(self) -> int:
        return self.nfe

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        measured = operator.num_measurements(y).reshape(-1, 1, 1, 1)
        zeta = self.strength * (measured / AUTHORS_MEASUREMENTS).sqrt()

        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            x_hat, vjp = denoise_with_vjp(prior.denoise, x, sigma)
            Ax, pull = operator.value_and_vjp(x_hat)
            residual = y - Ax
            norm = torch.linalg.vector_norm(residual.flatten(1), dim=1).clamp(min=1e-12)
            descent = vjp(pull(residual)) / norm.reshape(-1, 1, 1, 1)
            x_next = reverse_step(x, x_hat, noise, sigma, sigma_next, eta=1.0)
            return x_next + zeta * self.unscale(sigma, sigma_next) * descent

        return run_levels(images_of(y, operator), self.sigmas, generator, step)

    def unscale(self, sigma: float, sigma_next: float) -> float:
        """Returns the factor from the paper's step, on sqrt(a_t) x in [-1, 1], to x in [0, 1]."""
        a, a_next = (PRIOR_VAR / (PRIOR_VAR + s**2) for s in (sigma, sigma_next))
        return 0.5 / (a * a_next) ** 0.5
