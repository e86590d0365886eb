"""Twisted diffusion sampler: sequential Monte Carlo around moment matching, for several modes.

    x0 ~ N(E[x0 | x, y], Cov[x0 | x, y]),    x' ~ q(x' | x, x0)      by moment matching
    w <- w  psi(x') / p(y | x, x')

psi(x) = p(y | x) is the likelihood of the data given a state (the twisting function), and
p(y | x, x') is its prediction from the moments at x, see `likelihood`. The particles of a run are
resampled when their effective sample size is below half of their number.

For a Gaussian prior psi(x') and p(y | x, x') are equal. All weights then stay equal, and the
samples are exact for any number of steps, if `iterations` and `root_products` suffice for
convergence. Errors of fewer iterations accumulate in the weights, more so the larger the image
and the fewer the steps. Samplers without weights find the modes but weight them wrongly, and more
steps do not help (benchmarks/results/mixture.md); with many particles this solver gets both right.

An image of more than `block` pixels a side is cut into blocks, each with its own weights, see
`block_resampling`. That takes the log-likelihood as a sum over pixels. It is one over the entries
of y (`likelihood`), and an entry i that measures several pixels divides its share s_i among them
in proportion to A: the pixels get A^T (s / A 1). This is possible if an entry depends on pixels
near each other: for noise, missing pixels, blur, super-resolution and colour filters. For other
operators the image is one block, and the effective sample size says how few particles are left.

Each answer is one particle of a separate run, so that samples share no ancestors.

References:
    Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, Wu et al., 2023.
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al., 2024.
    Can Local Particle Filters Beat the Curse of Dimensionality?, Rebeschini and van Handel, 2015
    (blocks).

Differs from the authors' code:
    1. The likelihood has the covariance of moment matching; the authors' has an isotropic one, or
        none.
    2. A step includes the covariance of x0 given x. The authors' has only the variance of DDPM,
        which is too small with few steps. The weight is the authors', q-density over p-density,
        by Bayes' rule: N(x'; given y) / N(x') = p(y | x, x') / psi(x).
    3. Resampling is systematic, per block, without a loop and without reading weights back.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.core.schedules import Spacing, reverse_step
from genprior.inverse.base import setting
from genprior.inverse.diffusion.block_resampling import (
    Blocks,
    blocks,
    choose,
    effective_sizes,
    in_place,
    resample,
)
from genprior.inverse.diffusion.likelihood import log_likelihood, predicted_moments, products
from genprior.inverse.diffusion.moments import Moments, draw_given_data, draw_prior, moments
from genprior.inverse.diffusion.sampler import PRIOR_MEAN, PRIOR_VAR, DiffusionSolver, images_of
from genprior.operators.base import ColourFilter, Convolution, Operator
from genprior.priors.base import Denoiser

# An effective sample size has collapsed below this part of the way from 1 to the number of
# particles.
COLLAPSED = 1 / 8
# Least weight of an entry of y for which its share of the likelihood is divided among pixels.
TINY = 1e-6


class _ParticleBatch(Noise):
    """A batch with all particles of all runs, whose noise has one stream per run.

    Arguments:
        y, operator, noise_std, generator: Those of the runs, shapes (B, ...).
        count: Particles per run.
    """

    def __init__(
        self, y: Tensor, operator: Operator, noise_std: Tensor, generator: Noise, count: int
    ) -> None:
        self.runs, self.count, self.generator = len(y), count, generator
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
        block: Side in pixels of the blocks of an image that have their own weights.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples from several modes with their weights; a particle filter, expensive"

    particles: int = setting(16, ge=1)
    iterations: int = setting(3, ge=1)
    root_products: int = setting(2, ge=1)
    block: int = setting(8, ge=1, kw_only=True)
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
        return self.solve_with_weights(y, operator, prior, noise_std, generator)[0]

    def solve_with_weights(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> tuple[Tensor, Tensor]:
        x, sizes = self.cloud(y, operator, prior, noise_std, generator, 1)
        return x[:, 0], sizes

    def doubts_of_weights(self, effective_sizes: Tensor) -> tuple[str, ...]:
        least = 1 + COLLAPSED * (self.particles - 1)
        return tuple(
            f"image {i}: the effective sample size of the particles fell to {size:.1f} of "
            f"{self.particles}: the weights of modes are unreliable, and samples are hardly "
            f"better than those of moment-matched; set more particles, steps or iterations, or "
            f"smaller blocks"
            for i, size in enumerate(effective_sizes.tolist()) if size < least
        )

    def cloud(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor,
        generator: Noise, answers: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns equally likely particles of each run, and its effective sample size.

        Arguments:
            y, operator, prior, generator: As in a call of the solver.
            noise_std: Noise levels of the data, shape (B,).
            answers: Number of particles to choose by weight; None takes `particles`.

        Returns:
            Particles, shape (B, answers, C, H, W); and the least effective sample size over the
            levels, a mean over the pixels of those of their blocks, shape (B,).
        """
        N = self.particles
        batch = _ParticleBatch(y, operator, noise_std, generator, N)
        with torch.no_grad():
            spread = (PRIOR_VAR + self.sigmas[0] ** 2) ** 0.5
            x = PRIOR_MEAN + spread * batch.normal(images_of(batch.y, batch.operator))
            side = self.block if is_local(operator) else max(x.shape[-2:])
            # log-weights by pixel
            log_w = self._log_likelihood(moments(prior, x, self.sigmas[0]), batch)
            sizes = torch.full_like(y.flatten(1)[:, 0], N)
            for sigma, sigma_next in pairwise(self.sigmas):
                cut, w, sizes = self._weights(log_w, sizes, side, generator)
                index, uneven = resample(w, generator)
                x, log_w = _joined(cut, index, x, batch), _joined(cut, index, log_w, batch)
                again = cut.maps(uneven.expand(-1, -1, N)).flatten(0, 1)[:, None]
                log_w = torch.where(again, 0, log_w)
                at = moments(prior, x, sigma)
                x0 = self._draw(at, prior, batch)
                x_next = reverse_step(x, x0, batch.normal(x), sigma, sigma_next, eta=1.0)
                predicted = predicted_moments(at, x, x_next, sigma_next, self.root_products)
                log_w = log_w - self._log_likelihood(predicted, batch)
                x = x_next
                log_w = log_w + self._log_likelihood(moments(prior, x, sigma_next), batch)
            cut, w, sizes = self._weights(log_w, sizes, side, generator)
            answers = answers or N
            places = choose(torch.full_like(w[:, :1], 1 / N), answers, generator)
            index = in_place(choose(w, N, generator))
            index = index.gather(2, places.expand(-1, cut.count, -1))
            chosen = _ParticleBatch(y, operator, noise_std, generator, answers)
            at = moments(prior, _joined(cut, index, x, batch), self.sigmas[-1])
            return self._draw(at, prior, chosen).unflatten(0, (-1, answers)), sizes

    def _weights(
        self, log_w: Tensor, sizes: Tensor, side: int, generator: Noise
    ) -> tuple[Blocks, Tensor, Tensor]:
        """Returns blocks, their weights, and the least effective sample sizes until now."""
        log_w = log_w[:, 0].unflatten(0, (-1, self.particles))
        cut = blocks(log_w[:, :1], side, generator)
        w = cut.sums(log_w).softmax(dim=2)
        return cut, w, torch.minimum(sizes, cut.means(effective_sizes(w)).to(sizes))

    def _draw(self, at: Moments, prior: Denoiser, batch: _ParticleBatch) -> Tensor:
        """Draws x0 given x and y."""
        xi = draw_prior(prior, at, self.root_products, batch)
        n = batch.normal(batch.y)
        y, A, variance = batch.y, batch.operator, batch.variance
        return draw_given_data(y, A, at, xi, n, variance, self.iterations)

    def _log_likelihood(self, at: Moments, batch: _ParticleBatch) -> Tensor:
        """Returns the log-likelihood as a sum over pixels, shape (B N, 1, H, W)."""
        y, A, variance = batch.y, batch.operator, batch.variance
        shares = log_likelihood(y, A, at, variance, self.iterations)
        height, width = at.mean.shape[-2:]
        if max(height, width) <= self.block or not is_local(A):
            mean = shares.flatten(1).sum(dim=1) / (height * width)
            return mean.reshape(-1, 1, 1, 1).expand(-1, 1, height, width)
        weights = A.A(torch.ones_like(at.mean))
        known = weights.abs() > TINY
        shares = torch.where(known, shares / torch.where(known, weights, 1), 0)
        return A.A_adjoint(shares).sum(dim=1, keepdim=True)


def is_local(operator: Operator) -> bool:
    """Returns whether an entry of y depends only on pixels near each other."""
    known = operator.is_pixel_mask or operator.is_downsampling
    return known or isinstance(operator, Convolution | ColourFilter)


def _joined(cut: Blocks, index: Tensor, x: Tensor, batch: _ParticleBatch) -> Tensor:
    """Returns `Blocks.joined` of particles in one batch, as one batch."""
    return cut.joined(x.unflatten(0, (-1, batch.count)), index).flatten(0, 1)
