"""Moment-matched sampling: x0 is drawn given x and y, then the next state given x0.

    C = sigma_t^2 J,    J = D'(x),    xi ~ N(0, C),    n ~ N(0, sigma^2 I)
    x0 = D + xi + C A^T (A C A^T + sigma^2 I)^{-1} (y - A (D + xi) - n)
    x_next = x0 + s_next (sqrt(1 - zeta) (x - x0) / sigma_t + sqrt(zeta) n')

zeta is `stochasticity`. zeta = 1 - (s_next / sigma_t)^2 gives the ancestral sampler, x_next ~
q(x_next | x, x0), the DDPM posterior. zeta = 1 gives `daps` with its exact kernel, where errors of
earlier levels do not persist.

For a Gaussian prior every step is an exact conditional draw. The samples are then exact for any
number of steps, one included, and any zeta, with full_above = extra_noise = 0, max_inflation =
max_rescaling = 1 and enough iterations for convergence. Gaussian priors give xi in closed form,
xi = x' - D(x' + sigma_t n') for x' drawn from the prior; for a network C^(1/2) n is computed by a
few steps of Lanczos. For a prior of several modes the weights of the modes are wrong, see `smc`.
Images of at most 16 numbers are an exception: if their prior is not Gaussian, they are particles
with weights, see `dense_particles`.

A prior that is an inpainter gives m = E[x0 | y] for images with holes directly. At high levels m
holds more information about them than x does, and D and y are replaced by

    m + (D(x) - D(2 m - x)) / 2    and    A m

For Gaussian priors the result is the same: E[x0 | x = m, y] is m. At the first level, where x
holds almost no information, D is replaced by m alone.

An image that is only noisy is itself the state x at the level of its noise. Sampling begins
there, y is not used again, and each step draws x0 = D + xi.

References:
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al.,
    2024 (the mean of x0 given x and y).
    Denoising Diffusion Probabilistic Models, Ho et al., 2020 (q).
    Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, Zhang et al.,
    2024 (zeta = 1).
    Stochastic Image Denoising by Sampling from the Posterior Distribution, Kawar et al., 2021 (an
    image that is only noisy).

Differs from the authors' code:
    1. No such code is known to us: Rozet et al. use the mean where this solver draws.
    2. C is scaled to the residuals of the data, and to the last draw of x0, see
       `moments.inflated` and `moments.rescaled`.
    3. The use of m, for holes, is new here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.core.schedules import Spacing, reverse_step, sigma_steps
from genprior.inverse.base import setting
from genprior.inverse.diffusion.dense_particles import MOST_NUMBERS, is_gaussian, sample
from genprior.inverse.diffusion.moments import (
    Moments,
    draw_given_data,
    draw_prior,
    inflated,
    moments,
    rescaled,
)
from genprior.inverse.diffusion.sampler import DiffusionSolver, images_of, run_levels
from genprior.inverse.self_ensemble import MIN_NOISE_STD, mean_of_views, sees_holes
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

# Level above which residuals do not estimate C, since few numbers distinguish images there.
INFLATED_BELOW = 1.5
# Details of photos appear between these levels, and above this multiple of the noise of y.
RESCALED, ABOVE_NOISE = (0.05, 1.0), 2.0
# Level above which the noise is larger than any image in [0, 1].
LARGER_THAN_IMAGES = 1.0
# Views that are averaged in E[x0 | y] of an image with holes.
VIEWS = 2
# Images of few numbers may take this times the evaluations of others.
BUDGET, LAST_DENSE = 2, 0.04
# Last level for an image that is only noisy, as a fraction of its noise.
LAST_FRACTION = 0.05


@dataclass(frozen=True)
class MomentMatched(DiffusionSolver):
    """Moment-matched sampling.

    Arguments:
        steps: Network evaluations, each with `iterations` + `root_products` backward passes. For
            holes and an inpainter, some have none. For images that are only noisy, each has
            `root_products`, and no other setting is used.
        iterations: Iterations of the linear solve.
        root_products: Lanczos steps for C^(1/2); a Gaussian prior needs none.
        full_above: Level, in image units, above which `iterations` and `root_products` are used.
            Up to it one of each suffices, since C is near sigma_t^2 I. Above 1, where the noise
            is larger than any image, it is one iteration less.
        extra_noise: Noise of this times sigma_t is assumed in the data in addition to their own.
            It keeps the solve well conditioned, and is below the noise of the next level; 0 is
            exact.
        max_inflation: Largest factor by which C is scaled to the residuals, >= 1; 1 is exact.
            Images with missing pixels are not scaled.
        max_rescaling: Largest factor by which C is scaled to the last draw of x0, >= 1; 1 is
            exact. There is no scaling at levels up to twice the noise.
        stochasticity: Share zeta of the noise variance that is drawn anew, in [0, 1]; None gives
            the ancestral sampler.
        informed_max: Level, in image units, above which E[x0 | y] from an inpainter is used.
        particles: For images of at most 16 numbers, which are not only noisy, and a prior that is
            not Gaussian: least number of particles of a run; all samples of one measurement are
            the particles of one run, and have weights meanwhile. 1 particle never has another
            weight, and then samples are independent as for other images.
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
    full_above: float = setting(0.025, ge=0)
    extra_noise: float = setting(0.01, ge=0)
    max_inflation: float = setting(4.0, ge=1)
    max_rescaling: float = setting(1.75, ge=1)
    stochasticity: float | None = setting(1.0, ge=0, le=1)
    informed_max: float = setting(0.4, gt=0)
    particles: int = setting(16, ge=1, kw_only=True)
    spacing: Spacing = field(default="vp", kw_only=True)
    sigma_max: float = setting(10.0, gt=0, kw_only=True)

    def pools_samples(self, image_shape: Sequence[int]) -> bool:
        return self.particles > 1 and math.prod(image_shape[1:]) <= MOST_NUMBERS

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
        like = images_of(y, operator)
        if self.pools_samples(like.shape) and not is_gaussian(prior, like, self.sigmas):
            levels = self._dense_sigmas(like[0].numel())
            return sample(y, operator, prior, noise_std, generator, levels, self.particles)
        x0: Tensor | None = None
        start, sigmas = None, self.sigmas
        informed = self._informed(operator, prior)
        if informed:
            with torch.no_grad():
                mean = mean_of_views(
                    y, operator, prior, noise_std, prior.symmetries[:VIEWS]
                )
            sigmas = self._fewer_sigmas(prior)
            start = mean + sigmas[0] * generator.normal(mean)

        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            nonlocal x0
            iterations, products = self._work(sigma)
            at, data = moments(prior, x, sigma), y
            if informed and (x0 is None or sigma > self.informed_max):
                antisymmetric = 0 if x0 is None else at.mean - prior.denoise(2 * mean - x, sigma)
                at, data = Moments(mean + antisymmetric / 2, at.cov, sigma), operator.A(mean)
            xi = draw_prior(prior, at, products, generator)
            if self.max_inflation > 1 and sigma < INFLATED_BELOW:
                at, xi = inflated(data, operator, at, xi, noise_std**2, self.max_inflation)
            if self.max_rescaling > 1 and x0 is not None and RESCALED[0] < sigma < RESCALED[1]:
                max_factor = 1 + (self.max_rescaling - 1) * (sigma > ABOVE_NOISE * noise_std).to(y)
                at, xi = rescaled(x0, operator, at, xi, max_factor)
            n = generator.normal(y)
            variance = noise_std**2 + (self.extra_noise * sigma) ** 2
            x0 = draw_given_data(data, operator, at, xi, n, variance, iterations)
            if self.stochasticity is None:
                return reverse_step(x, x0, noise, sigma, sigma_next, eta=1.0)
            if noise is None:
                return x0
            kept = (1 - self.stochasticity) ** 0.5 / sigma * (x - x0)
            return x0 + sigma_next * (kept + self.stochasticity**0.5 * noise)

        return run_levels(like, sigmas, generator, step, start)

    def _denoised(
        self, y: Tensor, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        """Draws samples of images that are only noisy; levels are fractions of their noise."""
        level = per_image(noise_std.clamp(min=MIN_NOISE_STD), y)

        def step(x: Tensor, fraction: float, fraction_next: float, noise: Tensor | None) -> Tensor:
            at = moments(prior, x, fraction * level)
            x0 = at.mean + draw_prior(prior, at, self.root_products, generator)
            added = None if noise is None else level * noise
            return reverse_step(x, x0, added, fraction, fraction_next, eta=1.0)

        return run_levels(
            y, sigma_steps(self.steps, 1.0, LAST_FRACTION, "karras"), generator, step, y
        )

    def _dense_sigmas(self, numbers: int) -> list[float]:
        """Returns levels for the dense covariances of images of some numbers.

        They are those of the solver where these are affordable; else they are fewer, and the last
        is 0.04, from which one exact draw suffices if no modes are nearer to each other.
        """
        affordable = BUDGET * (self.nfe + self.jacobian_products) // (1 + numbers)
        if affordable >= self.steps:
            return self.sigmas
        last = min(max(LAST_DENSE, self.sigma_min), self.sigma_max)
        return sigma_steps(max(2, affordable), self.sigma_max, last, "log")

    def _informed(self, operator: Operator, prior: Denoiser) -> bool:
        return sees_holes(prior, operator) and self.steps > VIEWS

    def _fewer_sigmas(self, prior: Denoiser) -> list[float]:
        """Returns fewer levels, which together take no more than `steps` evaluations.

        Above `informed_max` all levels but the first take two; m takes one for each view.
        """
        evaluations = self.steps - len(prior.symmetries[:VIEWS])
        for steps in range(evaluations, 0, -1):
            sigmas = sigma_steps(steps, self.sigma_max, self.sigma_min, self.spacing)
            if steps + sum(sigma > self.informed_max for sigma in sigmas[1:]) <= evaluations:
                break
        return sigmas

    def _work(self, sigma: float) -> tuple[int, int]:
        """Returns the iterations of the solve and the Lanczos steps of the root at a level."""
        if sigma <= self.full_above:
            return 1, 1
        fewer = self.full_above > 0 and sigma > LARGER_THAN_IMAGES
        return max(1, self.iterations - fewer), self.root_products
