"""Moment-matched sampling: x0 is drawn given x and y, then the next state given x0.

    C = sigma_t^2 J,    J = D'(x),    xi ~ N(0, C),    n ~ N(0, sigma^2 I)
    x0 = D + xi + C A^T (A C A^T + sigma^2 I)^{-1} (y - A (D + xi) - n)
    x_next = x0 + s_next (sqrt(1 - zeta) (x - x0) / sigma_t + sqrt(zeta) n')

zeta is the renewal: 1 - (s_next / sigma_t)^2 makes the ancestral sampler, x_next ~ q(x_next | x,
x0), the DDPM posterior; 1 that of `daps` with its exact kernel, where errors of earlier levels
are forgotten.

Every step is an exact conditional if the prior is Gaussian: then the samples are exact, whatever
the number of steps, one included, and whatever zeta, with calm = slack = 0, inflation = sustain =
1 and iterations to the end. Gaussian priors give xi in closed form, xi = x' - D(x' + sigma_t n')
for x' drawn from the prior; for a network C^(1/2) n is a few steps of Lanczos. On a prior of
several modes the weights of the modes are wrong, see `smc`.

A prior that knows of holes gives m = E[x0 | y] of images with holes at once. It tells more of
them than x does at high levels, where D and y are replaced by

    m + (D(x) - D(2 m - x)) / 2    and    A m

which is the same for Gaussian priors: E[x0 | x = m, y] is m. At the first level, where x tells
next to nothing, m alone is taken.

An image that is only noisy is x at the level of its noise: the chain begins there, y is no longer
needed, and x0 = D + xi is all that is drawn.

References:
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al.,
    2024 (the mean of x0 given x and y).
    Denoising Diffusion Probabilistic Models, Ho et al., 2020 (q).
    Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, Zhang et al.,
    2024 (zeta = 1).
    Stochastic Image Denoising by Sampling from the Posterior Distribution, Kawar et al., 2021 (an
    image that is only noisy).

Differs from the authors' code:
    1. There is none that we know of: Rozet et al. put the mean where this has a draw.
    2. C is scaled to the residuals that the data show, and to the last draw of x0, see
       `moments.inflated` and `moments.sustained`.
    3. Holes that the prior knows of: m is ours.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.core.schedules import Spacing, reverse_step, sigma_steps
from genprior.inverse.base import setting
from genprior.inverse.diffusion.moments import (
    Moments,
    draw_given_data,
    draw_prior,
    inflated,
    moments,
    sustained,
)
from genprior.inverse.diffusion.sampler import DiffusionSolver, images_of, run_levels
from genprior.inverse.self_ensemble import LEAST, mean_of_views, sees_holes
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

# Above, where few numbers tell images apart, residuals say nothing of C.
INFLATED_BELOW = 1.5
# Between these levels, and above `NOISY` times the noise of y, details of photos come to light.
SUSTAINED, NOISY = (0.05, 1.0), 2.0
# Evaluations that go into E[x0 | y] of an image with holes.
VIEWS = 2
# The last level of an image that is only noisy, as a share of its noise.
NOISE_LEFT = 0.05


@dataclass(frozen=True)
class MomentMatched(DiffusionSolver):
    """Moment-matched sampling.

    Arguments:
        steps: Network evaluations, each with `iterations` + `root_products` backward passes; of
            holes that the prior knows of, some have none; of noise alone, each has
            `root_products`, and no other setting counts.
        iterations: Of the solve.
        root_products: Of Lanczos for C^(1/2); a Gaussian prior needs none.
        calm: Level, in image units, up to which one of each does: C is near sigma_t^2 I.
        slack: The data count as if they had noise of at least `extra_noise` sigma_t. It keeps the
            solve well conditioned, and the level below is noisier than that; 0 is exact.
        inflation: Largest factor by which C is scaled to the residuals, >= 1; 1 is exact. It is
            not scaled where pixels are missing.
        sustain: Largest factor by which C is scaled to the last draw of x0, >= 1; 1 is exact. It
            is not scaled at levels up to twice the noise.
        renewal: Share zeta of the noise that is drawn anew, in [0, 1]; None is that of the
            ancestral sampler.
        informed_max: Level, in image units, above which E[x0 | y] of such holes is used.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples, std, intervals: the best calibrated in 100 evaluations"

    steps: int = setting(20, ge=1)
    iterations: int = setting(3, ge=1)
    root_products: int = setting(2, ge=1)
    full_above: float = setting(0.04, ge=0)
    extra_noise: float = setting(0.01, ge=0)
    max_inflation: float = setting(4.0, ge=1)
    max_rescaling: float = setting(1.75, ge=1)
    stochasticity: float | None = setting(1.0, ge=0, le=1)
    informed_max: float = setting(0.4, gt=0)
    spacing: Spacing = field(default="vp", kw_only=True)
    sigma_max: float = setting(10.0, gt=0, kw_only=True)

    @property
    def jacobian_products(self) -> int:
        return sum(sum(self._work(sigma)) for sigma in self.sigmas)

    def jacobian_products_for(self, operator: Operator, prior: Denoiser) -> int:
        if operator.is_identity:
            return self.steps * self.root_products
        sigmas = self._fewer_sigmas(prior) if self._informed(operator, prior) else self.sigmas
        return sum(sum(self._work(sigma)) for sigma in sigmas)

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        if operator.is_identity:
            return self._denoised(y, prior, noise_std, generator)
        x0: Tensor | None = None
        start, sigmas = None, self.sigmas
        informed = self._informed(operator, prior)
        if informed:
            with torch.no_grad():
                mean = mean_of_views(y, operator, prior, noise_std, VIEWS)
            sigmas = self._fewer_sigmas(prior)
            start = mean + sigmas[0] * generator.normal(mean)

        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            nonlocal x0
            iterations, products = self._work(sigma)
            at, data = moments(prior, x, sigma), y
            if informed and (x0 is None or sigma > self.informed_max):
                odd = 0 if x0 is None else at.mean - prior.denoise(2 * mean - x, sigma)
                at, data = Moments(mean + odd / 2, at.cov, sigma), operator.A(mean)
            xi = draw_prior(prior, at, products, generator)
            if self.max_inflation > 1 and sigma < INFLATED_BELOW:
                at, xi = inflated(data, operator, at, xi, noise_std**2, self.max_inflation)
            if self.max_rescaling > 1 and x0 is not None and SUSTAINED[0] < sigma < SUSTAINED[1]:
                most = 1 + (self.max_rescaling - 1) * (sigma > NOISY * noise_std).to(y)
                at, xi = sustained(x0, operator, at, xi, most)
            n = generator.normal(y)
            variance = noise_std**2 + (self.extra_noise * sigma) ** 2
            x0 = draw_given_data(data, operator, at, xi, n, variance, iterations)
            if self.stochasticity is None:
                return reverse_step(x, x0, noise, sigma, sigma_next, eta=1.0)
            if noise is None:
                return x0
            kept = (1 - self.stochasticity) ** 0.5 / sigma * (x - x0)
            return x0 + sigma_next * (kept + self.stochasticity**0.5 * noise)

        return run_levels(images_of(y, operator), sigmas, generator, step, start)

    def _denoised(
        self, y: Tensor, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        """Samples of images that are only noisy; levels are shares of their noise."""
        level = per_image(noise_std.clamp(min=LEAST), y)

        def step(x: Tensor, share: float, share_next: float, noise: Tensor | None) -> Tensor:
            at = moments(prior, x, share * level)
            x0 = at.mean + draw_prior(prior, at, self.root_products, generator)
            added = None if noise is None else level * noise
            return reverse_step(x, x0, added, share, share_next, eta=1.0)

        return run_levels(
            y, sigma_steps(self.steps, 1.0, NOISE_LEFT, "karras"), generator, step, y
        )

    def _informed(self, operator: Operator, prior: Denoiser) -> bool:
        return sees_holes(prior, operator) and self.steps > VIEWS

    def _fewer_sigmas(self, prior: Denoiser) -> list[float]:
        """Levels where all but the first above `informed_max` have two evaluations."""
        evaluations = self.steps - len(prior.symmetries[:VIEWS])
        for steps in range(evaluations, 0, -1):
            sigmas = sigma_steps(steps, self.sigma_max, self.sigma_min, self.spacing)
            if steps + sum(sigma > self.informed_max for sigma in sigmas[1:]) <= evaluations:
                break
        return sigmas

    def _work(self, sigma: float) -> tuple[int, int]:
        """Iterations of the solve and products of the root at a level."""
        return (self.iterations, self.root_products) if sigma > self.full_above else (1, 1)
