"""Twisted diffusion sampler: a particle filter around moment matching, for priors of many modes.

    x_next ~ N(m(x_hat), v)           DDPM step with x_hat = E[x0 | x, y] by moment matching
    w <- w  N(x_next; m(D), v) / N(x_next; m(x_hat), v)  psi(x_next) / psi(x)

where psi(x) = N(y; A D, A C A^T + sigma^2 I) is the `twist`. Particles are resampled where fewer
than half of them count. Samplers without weights get the modes right and their weights wrong,
and more steps do not help (benchmarks/results/mixture.md); with many particles this is exact, up
to the steps: within a mode the spread is that of DDPM steps, too narrow while they are few.

Each answer is one particle of a run of its own, so that samples share no ancestors.

References:
    Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, Wu et al., 2023.
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al., 2024.

Differs from the authors' code:
    1. The twist has the covariance of moment matching; theirs an isotropic one, or none.
    2. Systematic resampling per image, without a loop and without reading weights back.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from genprior.diffusion import Spacing, step_coefficients
from genprior.inverse.chain import PRIOR_MEAN, PRIOR_VAR, ChainSolver, images_of
from genprior.inverse.twist import products, twist
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class SMC(ChainSolver):
    """Twisted diffusion sampler.

    Arguments:
        steps: Levels; each evaluates the network once for every particle.
        particles: For each answer.
        iterations: Of the solve in the twist, where more than 16 numbers are measured.
        spacing, sigma_max, sigma_min: See `ChainSolver`.

    Raises:
        ValueError: There is no particle.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples from several modes with their weights; a particle filter, dear"

    particles: int = 16
    iterations: int = 3
    spacing: Spacing = field(default="ddpm", kw_only=True)

    def __post_init__(self) -> None:
        if self.particles < 1:
            raise ValueError(f"particles must be at least 1, got {self.particles}")

    @property
    def nfe(self) -> int:
        return len(self.sigmas) * self.particles

    @property
    def products(self) -> int:
        return self.nfe * products(10**9, self.iterations)

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        return self.cloud(y, operator, prior, noise_std, generator)[:, 0]

    def cloud(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        """All particles of a run, equally likely, shape (B, particles, C, H, W).

        Arguments:
            y, operator, prior, generator: As in a call of the solver.
            noise_std: Shape (B,).
        """
        count = self.particles
        like = images_of(y, operator)
        like = like[:, None].expand(-1, count, *like.shape[1:])
        crowd = operator.select([i for i in range(len(y)) for _ in range(count)])
        data, variance = y.repeat_interleave(count, 0), noise_std.repeat_interleave(count) ** 2

        def twisted(x: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
            at = twist(prior, x, sigma, data, crowd, variance, self.iterations)
            return at.mean, at.guided, at.log_psi

        with torch.no_grad():
            spread = (PRIOR_VAR + self.sigmas[0] ** 2) ** 0.5
            x = (PRIOR_MEAN + spread * generator.normal(like)).flatten(0, 1)
            x_hat, guided, log_psi = twisted(x, self.sigmas[0])
            log_w = log_psi
            for sigma, sigma_next in zip(self.sigmas, self.sigmas[1:], strict=False):
                index, log_w = resample(log_w.reshape(len(y), count), generator)
                x, x_hat, guided, log_psi = (t[index] for t in (x, x_hat, guided, log_psi))
                keep, added = step_coefficients(sigma, sigma_next, eta=1.0)
                n = generator.normal(like).flatten(0, 1)
                x = guided + keep * (x - guided) + added * n
                # N(x; m(D), v) / N(x; m(guided), v), with x = m(guided) + added n
                shift = ((1 - keep) * (guided - x_hat) / added).flatten(1)
                log_w = log_w - ((n.flatten(1) + shift / 2) * shift).sum(dim=1)
                log_w = log_w - log_psi
                x_hat, guided, log_psi = twisted(x, sigma_next)
                log_w = log_w + log_psi
            index, _ = resample(log_w.reshape(len(y), count), generator, always=True)
            return guided[index].unflatten(0, (len(y), count))


def resample(log_w: Tensor, generator: Noise, always: bool = False) -> tuple[Tensor, Tensor]:
    """Systematic resampling of the runs in which fewer than half of the particles count.

    Arguments:
        log_w: Log-weights, shape (B, N).
        generator: One random number a run.
        always: Resample every run.

    Returns:
        Numbers of the particles to go on with, out of B N, and their log-weights, (B N,).
    """
    count = log_w.shape[1]
    w = log_w.softmax(dim=1)
    u = torch.special.ndtr(generator.normal(log_w[:, :1]))
    places = (torch.arange(count, dtype=w.dtype, device=w.device) + u) / count
    chosen = torch.searchsorted(w.cumsum(dim=1), places.contiguous()).clamp(max=count - 1)
    if not always:
        few = 1 / w.square().sum(dim=1, keepdim=True) < count / 2
        chosen = torch.where(few, chosen, torch.arange(count, device=w.device))
        log_w = torch.where(few, 0, log_w)
    first = count * torch.arange(len(w), device=w.device)[:, None]
    return (first + chosen).flatten(), log_w.flatten()
