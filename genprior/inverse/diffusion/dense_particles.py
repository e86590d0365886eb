"""Particle filter with dense covariances, for small images whose prior has several modes.

It is the sampler of `smc`, for images of so few numbers that the covariance C of x0 given x is
computed as a matrix, by one product with the Jacobian for each number:

    x0 ~ N(E[x0 | x, y], Cov[x0 | x, y]),    x' ~ q(x' | x, x0)
    w <- w  psi(x') / p(y | x, x'),    psi(x) = N(y; A D, A C A^T + sigma^2 I)

The linear algebra is then exact, and so is every step if the prior is Gaussian near x. All samples
of one measurement are the particles of one run. They are resampled by their weights when the
effective sample size is below half of their number, so that they gather in the modes in the
right proportion. Particles are resampled together with their moments, which saves the second
evaluation of `smc`.

References:
    Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, Wu et al., 2023.
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al., 2024.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.core.schedules import reverse_step
from genprior.inverse.diffusion.block_resampling import UNEVEN, choose, effective_sizes
from genprior.inverse.diffusion.sampler import PRIOR_MEAN, PRIOR_VAR, denoise_with_vjp
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

# Numbers per image up to which covariances are dense.
MOST_NUMBERS = 16
# Levels at which a denoiser is tested, and the part of its change that may be no affine map.
TESTED_LEVELS, NOT_AFFINE, ROUNDING = 6, 1e-3, 1e-5
# Noise of this times sigma_t is added to the data, so that matrices can be inverted.
EXTRA_NOISE = 1e-3


def is_gaussian(prior: Denoiser, like: Tensor, sigmas: Sequence[float]) -> bool:
    """Returns whether the denoiser is an affine map, as that of a Gaussian prior.

    Few levels and pairs of images are tested. They do not depend on the measurement, and no
    random numbers of the caller are used.

    Arguments:
        prior: The denoiser.
        like: Images (B, C, H, W), for their shape, type and device.
        sigmas: Levels of the sampler.
    """
    generator = torch.Generator().manual_seed(0)
    for sigma in sigmas[:: -(-len(sigmas) // TESTED_LEVELS)]:
        n = torch.randn(2, *like.shape[1:], generator=generator).to(like)
        a, b = PRIOR_MEAN + (PRIOR_VAR + sigma**2) ** 0.5 * n
        with torch.no_grad():
            D_a, D_b, D_middle = prior.denoise(torch.stack([a, b, (a + b) / 2]), sigma)
        error = ((D_a + D_b) / 2 - D_middle).norm()
        if error > NOT_AFFINE * (D_a - D_b).norm() + ROUNDING * D_middle.norm():
            return False
    return True


@dataclass(frozen=True)
class DenseMoments:
    """Mean D and covariance C = U diag(c) U^T of x0 given x, for N particles of d numbers.

    Arguments:
        mean: D, shape (N, d).
        values: c >= 0, shape (N, d).
        vectors: U, shape (N, d, d).
        sigma: Level of x.
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor
    sigma: float

    def select(self, index: Tensor) -> "DenseMoments":
        """Returns the moments of some particles."""
        return DenseMoments(
            self.mean[index], self.values[index], self.vectors[index], self.sigma
        )

    def apply(self, gain: Tensor, v: Tensor) -> Tensor:
        """Returns U diag(gain) U^T v for v and gain of shape (N, d)."""
        return _times(self.vectors, gain * _times(self.vectors.mT, v))


@dataclass(frozen=True)
class Measurement:
    """One measurement y = A x + sigma n with A as a matrix.

    Arguments:
        y: Shape (m,).
        A: Shape (m, d).
        noise_std: sigma >= 0, shape ().
    """

    y: Tensor
    A: Tensor
    noise_std: Tensor

    def variance(self, sigma: float) -> Tensor:
        """Returns the variance of the data assumed at a level, > 0."""
        return self.noise_std**2 + (EXTRA_NOISE * sigma) ** 2

    def gram(self, at: DenseMoments) -> tuple[Tensor, Tensor]:
        """Returns A U diag(c), shape (N, m, d), and the Cholesky factor of A C A^T + sigma^2 I."""
        AU = self.A @ at.vectors
        scaled = AU * at.values[:, None]
        noise = self.variance(at.sigma) * torch.eye(len(self.A)).to(self.A)
        return scaled, torch.linalg.cholesky(scaled @ AU.mT + noise)

    def log_likelihood(self, at: DenseMoments) -> Tensor:
        """Returns log N(y; A D, A C A^T + sigma^2 I) up to a constant, shape (N,)."""
        _, L = self.gram(at)
        r = (self.y - at.mean @ self.A.T)[..., None]
        z = torch.linalg.solve_triangular(L, r, upper=False)[..., 0]
        return -z.square().sum(dim=1) / 2 - L.diagonal(dim1=1, dim2=2).log().sum(dim=1)

    def draw(self, at: DenseMoments, n: Tensor, n_data: Tensor) -> Tensor:
        """Draws x0 given x and y, from white noise of shapes (N, d) and (N, m)."""
        x0 = at.mean + _times(at.vectors, at.values.sqrt() * n)
        r = self.y - x0 @ self.A.T - self.variance(at.sigma).sqrt() * n_data
        scaled, L = self.gram(at)
        w = torch.cholesky_solve(r[..., None], L)
        return x0 + _times(at.vectors, (scaled.mT @ w)[..., 0])


def dense_moments(prior: Denoiser, x: Tensor, sigma: float) -> DenseMoments:
    """Returns the moments of x0 given x, from d products with the Jacobian.

    Its symmetric part is used, without its negative eigenvalues.
    """
    mean, vjp = denoise_with_vjp(prior.denoise, x, sigma)
    unit = torch.eye(x[0].numel()).to(x).reshape(-1, 1, *x.shape[1:])
    J = torch.stack([vjp(e.expand_as(x)).flatten(1) for e in unit], dim=1).to(_wide(x))
    values, vectors = torch.linalg.eigh((J + J.mT) / 2)
    return DenseMoments(
        mean.flatten(1).to(J), sigma**2 * values.clamp(min=0), vectors, sigma
    )


def predicted(at: DenseMoments, x: Tensor, x_next: Tensor, sigma_next: float) -> DenseMoments:
    """Returns the moments of x0 given x and x_next, if x0 given x is Gaussian; see `likelihood`.

    Arguments:
        at: Moments given x alone.
        x, x_next: States at the levels `at.sigma` and `sigma_next`, shape (N, d).
        sigma_next: Level of x_next.
    """
    ratio = (at.sigma / sigma_next) ** 2
    shrunk = at.values / (1 + (ratio - 1) * at.values / at.sigma**2)
    difference = x_next - at.mean - (x - at.mean) / ratio
    mean = at.mean + at.apply(shrunk, difference) / sigma_next**2
    return DenseMoments(mean, shrunk, at.vectors, at.sigma)


def sample(
    y: Tensor,
    operator: Operator,
    prior: Denoiser,
    noise_std: Tensor,
    generator: Noise,
    sigmas: Sequence[float],
    particles: int,
) -> Tensor:
    """Draws posterior samples of small images; the samples of one measurement are one run.

    Arguments:
        y, operator, prior, noise_std, generator: As in a call of a solver.
        sigmas: Decreasing levels, each of which takes one evaluation and d products.
        particles: Least number of particles of a run; those of a run with fewer samples than
            this are several for each sample.

    Returns:
        Images, shape (B, C, H, W).
    """
    shape = operator.image_shape(y.shape)
    unit = torch.eye(shape[1:].numel()).to(y).reshape(-1, 1, *shape[1:])
    columns = [operator.A(e.expand(shape)).flatten(1) for e in unit]
    A = torch.stack(columns, dim=2).to(_wide(y))
    x, seen = y.new_empty(shape), operator.mask_unmeasured(torch.ones_like(y)).flatten(1)
    for rows in _same_measurement(y, A, noise_std, generator):
        i, noise = rows[0], generator.select(rows)
        per_row = -(-particles // len(rows))
        data = Measurement(y[i].flatten().to(A), A[i], noise_std[i].to(A))
        run = _Run(data, seen[i], noise, per_row, y.new_zeros(len(rows) * per_row, *shape[1:]))
        with torch.no_grad():
            x[rows] = run.sample(prior, sigmas)
    return x


class _Run:
    """One run of the particle filter.

    Arguments:
        data: The measurement.
        seen: 1 for entries of y that are measured, else 0; shape (m,).
        generator: Random streams, one for each sample.
        per_row: Particles for each sample.
        like: Zeros of the shape of all particles, (N, C, H, W).
    """

    def __init__(
        self, data: Measurement, seen: Tensor, generator: Noise, per_row: int, like: Tensor
    ) -> None:
        self.data, self.seen, self.generator = data, seen, generator
        self.per_row, self.like = per_row, like

    def sample(self, prior: Denoiser, sigmas: Sequence[float]) -> Tensor:
        """Returns one particle for each sample, after the last level."""
        x = PRIOR_MEAN + (PRIOR_VAR + sigmas[0] ** 2) ** 0.5 * self._normal(self.like)
        at = dense_moments(prior, x, sigmas[0])
        log_w = self.data.log_likelihood(at)
        for sigma_next in sigmas[1:]:
            w = log_w.softmax(dim=0)
            if effective_sizes(w) < UNEVEN * len(w):
                index = self._choose(w, len(w))
                x, at, log_w = x[index], at.select(index), torch.zeros_like(log_w)
            x0 = self._draw(at)
            x_next = reverse_step(x, x0, self._normal(x), at.sigma, sigma_next, eta=1.0)
            expected = predicted(at, *(v.flatten(1).to(at.mean) for v in (x, x_next)), sigma_next)
            log_w = log_w - self.data.log_likelihood(expected)
            x, at = x_next, dense_moments(prior, x_next, sigma_next)
            log_w = log_w + self.data.log_likelihood(at)
        index = self._choose(log_w.softmax(dim=0), len(x) // self.per_row)
        self.per_row, self.like = 1, self.like[: len(index)]
        return self._draw(at.select(index))

    def _draw(self, at: DenseMoments) -> Tensor:
        n = self._normal(self.like).flatten(1).to(at.mean)
        n_data = self.seen * self._normal(self.like.new_zeros(len(self.like), len(self.seen)))
        return self.data.draw(at, n, n_data.to(n)).to(self.like).reshape(self.like.shape)

    def _normal(self, like: Tensor) -> Tensor:
        return self.generator.normal(like.unflatten(0, (-1, self.per_row))).flatten(0, 1)

    def _choose(self, w: Tensor, count: int) -> Tensor:
        """Returns indices of `count` particles, chosen by weight: systematic resampling."""
        return choose(w[None, None], count, self.generator.select([0]))[0, 0]


def _same_measurement(
    y: Tensor, A: Tensor, noise_std: Tensor, generator: Noise
) -> list[list[int]]:
    """Returns the rows of the batch in groups, one for each measurement of each image."""
    groups: dict[tuple, list[int]] = {}
    for row, image in enumerate(generator.images):
        parts = (v[row].cpu().numpy().tobytes() for v in (y, A, noise_std))
        groups.setdefault((image, *parts), []).append(row)
    return list(groups.values())


def _times(matrices: Tensor, v: Tensor) -> Tensor:
    return (matrices @ v[..., None])[..., 0]


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64
