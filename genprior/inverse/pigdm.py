"""Pseudo-inverse guided diffusion: the posterior mean of x0 under an isotropic guess.

    r^2 = v sigma_t^2 / (v + sigma_t^2)
    g = J^T A^T (r^2 A A^T + sigma^2 I)^{-1} (y - A D(x))
    x_hat = D(x) + sigma_t^2 g,    then a DDIM / DDPM step

References:
    Pseudoinverse-Guided Diffusion Models for Inverse Problems, Song et al., 2023.

Differs from the authors' code:
    1. The weight of g is the one that Tweedie's formula asks for, sigma_t^2; theirs adds
        r^2 g after the step, and gets worse with more steps. `variant="published"` is theirs.
    2. `prior_var` may be set to the variance of the images; theirs is 1 on [-1, 1].
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from genprior.diffusion import Spacing, reverse_step, sigma_steps
from genprior.inverse.base import Solver
from genprior.inverse.chain import PRIOR_VAR, denoise_with_vjp, run_chain
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class PiGDM(Solver):
    """Pseudo-inverse guided diffusion.

    Arguments:
        steps: Network evaluations, each with a backward pass.
        eta: 1 is DDPM, 0 is DDIM.
        variant: "consistent" or "published", see the head of this file.
        prior_var: Variance v of the images in squared image units.
        spacing: Placement of the noise levels.
        sigma_max: First level, in image units; unused by "ddpm".
        sigma_min: Last level, likewise.
    """

    needs = Denoiser
    stochastic = True
    summary = "posterior samples, isotropic covariance; 1 forward + 1 backward a step"

    steps: int = 100
    eta: float = 1.0
    variant: Literal["consistent", "published"] = "consistent"
    prior_var: float = PRIOR_VAR
    spacing: Spacing = "karras"
    sigma_max: float = 50.0
    sigma_min: float = 0.005

    def __post_init__(self) -> None:
        if self.variant not in ("consistent", "published"):
            raise ValueError(
                f"variant must be 'consistent' or 'published', got {self.variant!r}"
            )

    @property
    def nfe(self) -> int:
        return len(sigma_steps(self.steps, self.sigma_max, self.sigma_min, self.spacing))

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        variance = noise_std**2

        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            x_hat, vjp = denoise_with_vjp(prior.denoise, x, sigma)
            r2 = self.prior_var * sigma**2 / (self.prior_var + sigma**2)
            residual = operator.solve_gram(y - operator.A(x_hat), r2, variance)
            g = vjp(operator.A_adjoint(residual))
            if self.variant == "published":
                return reverse_step(x, x_hat, noise, sigma, sigma_next, self.eta) + r2 * g
            return reverse_step(x, x_hat + sigma**2 * g, noise, sigma, sigma_next, self.eta)

        like = y.new_zeros(()).expand(operator.image_shape(y.shape))
        sigmas = sigma_steps(self.steps, self.sigma_max, self.sigma_min, self.spacing)
        return run_chain(like, sigmas, generator, step)
