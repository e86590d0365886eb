"""Moment matching posterior sampling (MMPS): E[x0 | x, y] from Tweedie's covariance.

    C = sigma_t^2 J,    J = D'(x)
    x_hat = D(x) + C A^T (A C A^T + sigma^2 I)^{-1} (y - A D(x)),   then a DDIM / DDPM step

For Gaussian priors and any A, x_hat is E[x0 | x, y], if `iterations` suffice for convergence. The
steps use this mean where a draw of x0 would be exact, so the spread of the samples is too small
unless there are many steps; `moment-matched` draws x0.

References:
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al., 2024.

Differs from the authors' code:
    1. The solve is by preconditioned conjugate residuals, with the iterates of GMRES; the
        authors' has no preconditioner.
    2. An iteration costs one backward pass; the authors' code needs one more at the end.
"""

from dataclasses import dataclass

from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import setting
from genprior.inverse.diffusion.moments import correction, moments
from genprior.inverse.diffusion.sampler import DiffusionSolver, run_ddim
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class MMPS(DiffusionSolver):
    """Moment matching posterior sampling.

    Arguments:
        steps: Network evaluations, each with `iterations` backward passes.
        eta: 1 is DDPM, 0 is DDIM.
        iterations: Iterations of the linear solve.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples, unbiased but too narrow in few steps"

    eta: float = setting(1.0, ge=0, le=1)
    iterations: int = setting(3, ge=1)

    @property
    def jacobian_products(self) -> int:
        return self.nfe * self.iterations

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        def estimate(x: Tensor, sigma: float) -> Tensor:
            at = moments(prior, x, sigma)
            r = y - operator.A(at.mean)
            return at.mean + correction(r, operator, at, noise_std**2, self.iterations)

        return run_ddim(y, operator, self.sigmas, generator, estimate, self.eta)
