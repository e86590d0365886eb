"""Moment-matched ancestral sampling: x0 is drawn given x and y, then the noise given x0.

    C = sigma_t^2 J,    J = D'(x),    xi ~ N(0, C),    n ~ N(0, sigma^2 I)
    x0 = D + xi + C A^T (A C A^T + sigma^2 I)^{-1} (y - A (D + xi) - n)
    x_next ~ q(x_next | x, x0),    the DDPM posterior

Every step is an exact conditional if the prior is Gaussian: then the samples are exact, whatever
the number of steps, one included, with slack = 0 and iterations to the end. Gaussian priors
give xi in closed form, xi = x' - D(x' + sigma_t n') for x' drawn from the prior; for a network
C^(1/2) n is a few steps of Lanczos. On a prior of several modes the weights of the modes are
wrong, see `smc`.

References:
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al.,
    2024 (the mean of x0 given x and y).
    Denoising Diffusion Probabilistic Models, Ho et al., 2020 (q).

Differs from the authors' code:
    1. There is none that we know of: Rozet et al. put the mean where this has a draw.
"""

from dataclasses import dataclass, field

from torch import Tensor

from genprior.diffusion import Spacing, reverse_step
from genprior.inverse.chain import ChainSolver, images_of, run_chain
from genprior.inverse.moments import draw_given_data, draw_prior, moments
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class MomentMatched(ChainSolver):
    """Moment-matched ancestral sampling.

    Arguments:
        steps: Network evaluations, each with `iterations` + `root_products` backward passes.
        iterations: Of the conjugate gradient for the solve.
        root_products: Of Lanczos for C^(1/2); a Gaussian prior needs none.
        calm: Level, in image units, up to which one of each does: C is near sigma_t^2 I.
        slack: The data count as if they had noise of at least `slack` sigma_t. It keeps the
            solve well conditioned, and the level below is noisier than that; 0 is exact.
        spacing, sigma_max, sigma_min: See `ChainSolver`.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples, std, intervals: the best calibrated in 100 evaluations"

    steps: int = 16
    iterations: int = 4
    root_products: int = 2
    calm: float = 0.05
    slack: float = 0.03
    spacing: Spacing = field(default="log", kw_only=True)
    sigma_max: float = field(default=10.0, kw_only=True)

    @property
    def products(self) -> int:
        return sum(sum(self._work(sigma)) for sigma in self.sigmas)

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            iterations, products = self._work(sigma)
            at = moments(prior, x, sigma)
            xi = draw_prior(prior, at, products, generator)
            n = generator.normal(y)
            variance = noise_std**2 + (self.slack * sigma) ** 2
            x0 = draw_given_data(y, operator, at, xi, n, variance, iterations)
            return reverse_step(x, x0, noise, sigma, sigma_next, eta=1.0)

        return run_chain(images_of(y, operator), self.sigmas, generator, step)

    def _work(self, sigma: float) -> tuple[int, int]:
        """Iterations of the solve and products of the root at a level."""
        return (self.iterations, self.root_products) if sigma > self.calm else (1, 1)
