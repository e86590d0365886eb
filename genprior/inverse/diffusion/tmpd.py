"""Tweedie moment projected diffusion (TMPD): Tweedie's covariance, replaced by its row sums.

    C = sigma_t^2 J,    J = D'(x),    q = A C A^T 1
    x_hat = D(x) + C A^T ((y - A D(x)) / (sigma^2 + q)),   then a DDIM / DDPM step

x_hat is exact for Gaussian priors where A C A^T is diagonal, as for a single measured number.
Where positive and negative covariances cancel in a row, q is far below the variance and a step
overshoots. With r = y - A D(x), w = r / (sigma^2 + q) and g = A C A^T w + sigma^2 w, a step that
would leave a larger residual, |r - g| > |r|, is shortened to the best length along it:

    x_hat = D(x) + t C A^T w,    t = <r, g> / |g|^2 in [0, 1]

References:
    Tweedie Moment Projected Diffusions for Inverse Problems, Boys et al., 2023.

Differs from the authors' code:
    1. Row sums below 0 count as 0. Entries with neither noise nor variance are not corrected.
    2. Steps that overshoot are shortened; without it, x_hat diverges on a periodic texture, and on
       other textures in few steps without noise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.linalg import inner, per_image
from genprior.core.random_streams import Noise
from genprior.inverse.base import setting
from genprior.inverse.diffusion.sampler import DiffusionSolver, denoise_with_vjp, run_ddim
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class TMPD(DiffusionSolver):
    """Tweedie moment projected diffusion.

    Arguments:
        steps: Network evaluations, each with 2 backward passes.
        eta: 1 is DDPM, 0 is DDIM.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples, covariance replaced by its row sums; for scattered pixels"

    eta: float = setting(1.0, ge=0, le=1)

    @property
    def jacobian_products(self) -> int:
        return 2 * self.nfe

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        ones = operator.mask_unmeasured(torch.ones_like(y))
        variance = per_image(noise_std, y) ** 2

        def estimate(x: Tensor, sigma: float) -> Tensor:
            x_hat, vjp = denoise_with_vjp(prior.denoise, x, sigma)
            q = sigma**2 * operator.A(vjp(operator.A_adjoint(ones)))
            total = variance + q.clamp(min=0)
            r = y - operator.A(x_hat)
            weights = torch.where(total > 0, r / torch.where(total > 0, total, 1), 0)
            step = sigma**2 * vjp(operator.A_adjoint(weights))
            return x_hat + _length(r, operator.A(step) + variance * weights) * step

        return run_ddim(y, operator, self.sigmas, generator, estimate, self.eta)


def _length(r: Tensor, g: Tensor) -> Tensor:
    """Returns 1, or less where the residual r - g would be larger than r; (B, 1, 1, 1)."""
    size = inner(g, g)
    best = (inner(r, g) / torch.where(size > 0, size, 1)).clamp(0, 1)
    overshoots = inner(r - g, r - g) > inner(r, r)
    return per_image(torch.where(overshoots, best, 1), r.new_empty(len(r), 1, 1, 1))
