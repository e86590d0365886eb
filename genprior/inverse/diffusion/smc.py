"""Twisted diffusion sampler: a particle filter around moment matching, for priors of many modes.

    x0 ~ N(E[x0 | x, y], Cov[x0 | x, y]),    x' ~ q(x' | x, x0)      by moment matching
    w <- w  psi(x') / p(y | x, x')

where psi(x) = p(y | x) is the `twist` and p(y | x, x') is what the moments at x foretell of it.
Particles are resampled where fewer than half of them count. On a Gaussian prior both are the
same, all weights stay equal, and the samples are exact in any number of steps, with `iterations`
and `root_products` to the end. What fewer leave out adds up in the weights, more so the larger
the image and the fewer the steps: at the defaults, of 8 particles of 12 x 12 pixels only 3 count
at worst. Samplers without weights get the modes right and their weights wrong, and more steps do
not help (benchmarks/results/mixture.md); with many particles this gets both.

Each answer is one particle of a run of its own, so that samples share no ancestors.

References:
    Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, Wu et al., 2023.
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al., 2024.

Differs from the authors' code:
    1. The twist has the covariance of moment matching; theirs an isotropic one, or none.
    2. A step has the covariance of x0 given x as well, theirs that of DDPM alone, which is too
       narrow while steps are few. The weight is theirs, q-density over p-density, by Bayes:
       N(x'; given y) / N(x') = p(y | x, x') / psi(x).
    3. Systematic resampling per image, without a loop and without reading weights back.
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


class _Crowd(Noise):
    """The same problem for all particles of a run, and their noise: of a run, one stream.

    Arguments:
        y, operator, noise_std, generator: Of the runs.
        count: Particles of a run.
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
        steps: Levels; each evaluates the network twice for every particle.
        particles: For each answer.
        iterations: Of a solve; for the twist only where more than 16 numbers are measured.
        root_products: Of Lanczos, for C^(1/2) and for the covariance that is foretold.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples from several modes with their weights; a particle filter, dear"

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
        likelihood = products(10**9, self.iterations)  # of few numbers it has one for each
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
        """Equally likely particles of a run, shape (B, answers, C, H, W).

        Arguments:
            y, operator, prior, generator: As in a call of the solver.
            noise_std: Shape (B,).
            answers: How many, chosen by weight; None is all.
        """
        count, answers = self.particles, answers or self.particles
        crowd = _Crowd(y, operator, noise_std, generator, count)
        with torch.no_grad():
            spread = (PRIOR_VAR + self.sigmas[0] ** 2) ** 0.5
            x = PRIOR_MEAN + spread * crowd.normal(images_of(crowd.y, crowd.operator))
            log_w = self._likelihood(moments(prior, x, self.sigmas[0]), crowd)
            for sigma, sigma_next in pairwise(self.sigmas):
                index, log_w = resample(log_w.reshape(-1, count), generator)
                x = x[index]
                at = moments(prior, x, sigma)
                x0 = self._draw(at, prior, crowd)
                x_next = reverse_step(x, x0, crowd.normal(x), sigma, sigma_next, eta=1.0)
                after = predicted_moments(at, x, x_next, sigma_next, self.root_products)
                log_w = log_w - self._likelihood(after, crowd)
                x = x_next
                log_w = log_w + self._likelihood(moments(prior, x, sigma_next), crowd)
            index = choose(log_w.reshape(-1, count).softmax(dim=1), answers, generator)
            few = _Crowd(y, operator, noise_std, generator, answers)
            x0 = self._draw(moments(prior, x[index], self.sigmas[-1]), prior, few)
            return x0.unflatten(0, (-1, answers))

    def _draw(self, at: Moments, prior: Denoiser, crowd: _Crowd) -> Tensor:
        """x0 given x and y."""
        xi = draw_prior(prior, at, self.root_products, crowd)
        n = crowd.normal(crowd.y)
        y, A, variance = crowd.y, crowd.operator, crowd.variance
        return draw_given_data(y, A, at, xi, n, variance, self.iterations)

    def _likelihood(self, at: Moments, crowd: _Crowd) -> Tensor:
        return log_likelihood(crowd.y, crowd.operator, at, crowd.variance, self.iterations)


def resample(log_w: Tensor, generator: Noise) -> tuple[Tensor, Tensor]:
    """Resamples the runs in which fewer than half of the particles count.

    Arguments:
        log_w: Log-weights, shape (B, N).
        generator: One random number a run.

    Returns:
        Numbers of the particles to go on with, out of B N, and their log-weights, (B N,).
    """
    count = log_w.shape[1]
    w = log_w.softmax(dim=1)
    few = 1 / w.square().sum(dim=1, keepdim=True) < count / 2
    chosen = choose(w, count, generator).reshape(-1, count)
    themselves = torch.arange(chosen.numel(), device=w.device).view_as(chosen)
    return torch.where(few, chosen, themselves).flatten(), torch.where(few, 0, log_w).flatten()


def choose(w: Tensor, answers: int, generator: Noise) -> Tensor:
    """Systematic resampling: `answers` particles of each run, by weight.

    Arguments:
        w: Weights, shape (B, N); the rows sum to 1.
        answers: How many of a run.
        generator: One random number a run.

    Returns:
        Their numbers out of B N, shape (B answers,).
    """
    runs, count = w.shape
    u = torch.special.ndtr(generator.normal(w[:, :1]))
    places = (torch.arange(answers, dtype=w.dtype, device=w.device) + u) / answers
    chosen = torch.searchsorted(w.cumsum(dim=1), places.contiguous()).clamp(max=count - 1)
    return (count * torch.arange(runs, device=w.device)[:, None] + chosen).flatten()
