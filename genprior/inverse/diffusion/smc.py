"""Twisted diffusion sampler: sequential Monte Carlo around moment matching, for several modes.

    x0 ~ N(E[x0 | x, y], Cov[x0 | x, y]),    x' ~ q(x' | x, x0)      by moment matching
    w <- w  psi(x') / p(y | x, x')

psi(x) = p(y | x) is the likelihood of the data given a state (the twisting function), and
p(y | x, x') is its prediction from the moments at x, see `likelihood`. The particles of a run are
resampled when their effective sample size is below half of their number.

For a Gaussian prior psi(x') and p(y | x, x') are equal. All weights then stay equal, and the
samples are exact for any number of steps, if `iterations` and `root_products` suffice for
convergence. Errors of fewer iterations accumulate in the weights, more so the larger the image
and the fewer the steps: at the defaults, with 8 particles of 12 x 12 pixels, the effective sample
size falls to 3 at worst. Samplers without weights find the modes but weight them wrongly, and more
steps do not help (benchmarks/results/mixture.md); with many particles this solver gets both right.

Each answer is one particle of a separate run, so that samples share no ancestors.

References:
    Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, Wu et al., 2023.
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al., 2024.

Differs from the authors' code:
    1. The likelihood has the covariance of moment matching; the authors' has an isotropic one, or
        none.
    2. A step includes the covariance of x0 given x. The authors' has only the variance of DDPM,
        which is too small with few steps. The weight is the authors', q-density over p-density,
        by Bayes' rule: N(x'; given y) / N(x') = p(y | x, x') / psi(x).
    3. Resampling is systematic, per image, without a loop and without reading weights back.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.core.schedules import Spacing, reverse_step
from genprior.inverse.base import setting
from genprior.inverse.diffusion.likelihood import log_likelihood, predicted_moments, products
from genprior.inverse.diffusion.moments import Moments, draw_given_data, draw_prior, moments
from genprior.inverse.diffusion.sampler import PRIOR_MEAN, PRIOR_VAR, DiffusionSolver, images_of
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


class _ParticleBatch(Noise):
    """A batch with all particles of all runs, whose noise has one stream per run.

    Arguments:
        y, operator, noise_std, generator: Those of the runs, shapes (B, ...).
        count: Particles per run.
    """

    def __init__(
        self, y: Tensor, operator: Operator, noise_std: Tensor, generator: Noise, count: int
    ) -> None:
        self.runs, self.generator = len(y), generator
        self.y = y.repeat_interleave(count, 0)
        self.operator = operator.select([i for i in range(len(y)) for _ in range(count)])
        self.variance = noise_std.repeat_interleave(count) ** 2

    def normal(self, like: Tensor) -> Tensor:
        return self.generator.normal(like.unflatten(0, (self.runs, -1))).flatten(0, 1)


@dataclass(frozen=True)
class SMC(DiffusionSolver):
    """Twisted diffusion sampler.

    Arguments:
        steps: Number of levels; each evaluates the network twice for every particle.
        particles: Particles for each answer.
        iterations: Iterations of a linear solve; the likelihood uses them only for
            measurements of more than 16 entries.
        root_products: Lanczos steps for C^(1/2) and for the predicted covariance.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples from several modes with their weights; a particle filter, expensive"

    particles: int = setting(16, ge=1)
    iterations: int = setting(3, ge=1)
    root_products: int = setting(2, ge=1)
    spacing: Spacing = field(default="log", kw_only=True)

    @property
    def nfe(self) -> int:
        return (2 * len(self.sigmas) - 1) * self.particles + 1

    @property
    def batch_multiplier(self) -> int:
        return self.particles

    @property
    def jacobian_products(self) -> int:
        likelihood = products(10**9, self.iterations)  # for 16 entries or fewer, one for each
        draw = self.iterations + self.root_products
        step = draw + likelihood + self.root_products * (1 + likelihood)
        return self.particles * (likelihood + (len(self.sigmas) - 1) * step) + draw

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        return self.cloud(y, operator, prior, noise_std, generator, 1)[:, 0]

    def cloud(
        self,
        y: Tensor,
        operator: Operator,
        prior: Denoiser,
        noise_std: Tensor,
        generator: Noise,
        answers: int | None = None,
    ) -> Tensor:
        """Returns equally likely particles of each run, shape (B, answers, C, H, W).

        Arguments:
            y, operator, prior, generator: As in a call of the solver.
            noise_std: Noise levels of the data, shape (B,).
            answers: Number of particles to choose by weight; None takes `particles`.
        """
        count, answers = self.particles, answers or self.particles
        batch = _ParticleBatch(y, operator, noise_std, generator, count)
        with torch.no_grad():
            spread = (PRIOR_VAR + self.sigmas[0] ** 2) ** 0.5
            x = PRIOR_MEAN + spread * batch.normal(images_of(batch.y, batch.operator))
            log_w = self._likelihood(moments(prior, x, self.sigmas[0]), batch)
            for sigma, sigma_next in pairwise(self.sigmas):
                index, log_w = resample(log_w.reshape(-1, count), generator)
                x = x[index]
                at = moments(prior, x, sigma)
                x0 = self._draw(at, prior, batch)
                x_next = reverse_step(x, x0, batch.normal(x), sigma, sigma_next, eta=1.0)
                predicted = predicted_moments(at, x, x_next, sigma_next, self.root_products)
                log_w = log_w - self._likelihood(predicted, batch)
                x = x_next
                log_w = log_w + self._likelihood(moments(prior, x, sigma_next), batch)
            index = choose(log_w.reshape(-1, count).softmax(dim=1), answers, generator)
            chosen = _ParticleBatch(y, operator, noise_std, generator, answers)
            x0 = self._draw(moments(prior, x[index], self.sigmas[-1]), prior, chosen)
            return x0.unflatten(0, (-1, answers))

    def _draw(self, at: Moments, prior: Denoiser, batch: _ParticleBatch) -> Tensor:
        """Draws x0 given x and y."""
        xi = draw_prior(prior, at, self.root_products, batch)
        n = batch.normal(batch.y)
        y, A, variance = batch.y, batch.operator, batch.variance
        return draw_given_data(y, A, at, xi, n, variance, self.iterations)

    def _likelihood(self, at: Moments, batch: _ParticleBatch) -> Tensor:
        return log_likelihood(batch.y, batch.operator, at, batch.variance, self.iterations)


def resample(log_w: Tensor, generator: Noise) -> tuple[Tensor, Tensor]:
    """Resamples the runs whose effective sample size is below half the number of particles.

    Arguments:
        log_w: Log-weights, shape (B, N).
        generator: Random streams, one per run; one number is drawn from each.

    Returns:
        Indices of the particles to continue with, out of B N, and their log-weights, (B N,).
    """
    count = log_w.shape[1]
    w = log_w.softmax(dim=1)
    uneven = 1 / w.square().sum(dim=1, keepdim=True) < count / 2
    chosen = choose(w, count, generator).reshape(-1, count)
    kept = torch.arange(chosen.numel(), device=w.device).view_as(chosen)
    return torch.where(uneven, chosen, kept).flatten(), torch.where(uneven, 0, log_w).flatten()


def choose(w: Tensor, answers: int, generator: Noise) -> Tensor:
    """Chooses `answers` particles of each run by weight: systematic resampling.

    Arguments:
        w: Weights, shape (B, N); the rows sum to 1.
        answers: Number of particles to choose per run.
        generator: Random streams, one per run; one number is drawn from each.

    Returns:
        Indices out of B N, shape (B answers,).
    """
    runs, count = w.shape
    u = torch.special.ndtr(generator.normal(w[:, :1]))
    positions = (torch.arange(answers, dtype=w.dtype, device=w.device) + u) / answers
    chosen = torch.searchsorted(w.cumsum(dim=1), positions.contiguous()).clamp(max=count - 1)
    return (count * torch.arange(runs, device=w.device)[:, None] + chosen).flatten()
