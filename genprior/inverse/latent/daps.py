"""Latent DAPS: decoupled annealing posterior sampling with a denoiser of latents.

    z_hat = end of the probability-flow ODE from z                      (a few Euler steps)
    z_0 ~ N(z_hat, s^2 I) exp(-|y - A D(z_0)|^2 / tau^2)                (damped Langevin steps)
    z_next = z_0 + s_next n

The damped steps, with momentum m, keep that law for small rates r:

    v <- m v + r^1/2 grad log + (2 (1 - m))^1/2 n,    z_0 <- z_0 + r^1/2 v

References:
    Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, Zhang et al., 2024
        (LatentDAPS).

Differs from the authors' code:
    1. tau is in units of [0, 1]: the authors' 0.01 is for images in [-1, 1]. It is not adapted to
        the noise level, unless `tau` is None: then it is sqrt(2) times the noise level, for which
        the second line is Bayes' rule.
    2. Rate, momentum and steps are the authors' for box inpainting with latent diffusion of faces;
        they tune them per task.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.core.schedules import sigma_steps
from genprior.inverse.base import Solver, setting
from genprior.inverse.latent.schedule import gradient, latents_like
from genprior.operators.base import Operator
from genprior.priors.base import LatentDenoiser

SMALLEST_TAU = 1e-3


@dataclass(frozen=True)
class LatentDAPS(Solver):
    """Decoupled annealing posterior sampling in latents.

    Arguments:
        steps: Noise levels, with the spacing of Karras et al.
        ode_steps: Evaluations of the denoiser at each level.
        s_max, s_min: First and last level, in units of latents.
        ode_min: Level at which the last step of the ODE begins.
        langevin_steps: Steps at each level, each a pass through the decoder and back.
        rate: Step size of the first level, > 0; it falls linearly.
        rate_share: Step size of the last level, as a share of the first, in (0, 1].
        momentum: Momentum m, in [0, 1); 0 is Langevin.
        tau: Width of the data term, in image units; None adapts it to the noise level.
    """

    needs = LatentDenoiser
    stochastic = True
    uses = "gradient"
    summary = "samples, their spread tuned to noise of 0.025; tau=None adapts it"

    steps: int = setting(50, ge=1)
    ode_steps: int = setting(2, ge=1)
    s_max: float = setting(10.0, gt=0)
    s_min: float = setting(0.1, gt=0)
    ode_min: float = setting(1e-3, gt=0)
    langevin_steps: int = setting(15, ge=1)
    rate: float = setting(9.02e-6, gt=0)
    rate_share: float = setting(0.13, ge=0, le=1)
    momentum: float = setting(0.74, ge=0, le=1)
    tau: float | None = setting(0.005, gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum == 1:
            raise ValueError("momentum must be below 1: at 1 there is no noise")
        _ = self.levels

    @property
    def levels(self) -> list[float]:
        """Noise levels of the latents, decreasing."""
        return sigma_steps(self.steps, self.s_max, self.s_min, "karras")

    @property
    def nfe(self) -> int:
        return self.steps * (self.ode_steps + self.langevin_steps) + 1

    @property
    def jacobian_products(self) -> int:
        return self.steps * self.langevin_steps

    @property
    def supports_windows(self) -> bool:
        return False

    @torch.no_grad()
    def solve(
        self, y: Tensor, operator: Operator, prior: LatentDenoiser, noise_std: Tensor,
        generator: Noise,
    ) -> Tensor:
        shape, like = operator.image_shape(y.shape), latents_like(y, operator, prior)
        tau2 = torch.full_like(noise_std, (self.tau or 0.0) ** 2)
        if self.tau is None:
            tau2 = 2 * noise_std.clamp(min=SMALLEST_TAU) ** 2

        def misfit(z: Tensor) -> tuple[Tensor, Tensor]:
            residual = operator.mask_unmeasured(y - operator.A(prior.decode(z, shape)))
            return residual.flatten(1).square().sum(dim=1) / tau2, z

        levels = self.levels
        z = (1 + levels[0] ** 2) ** 0.5 * generator.normal(like)
        for k, (s, s_next) in enumerate(zip(levels, [*levels[1:], 0.0], strict=True)):
            z_0 = z_hat = self._flow(prior, z, s)
            rate = self.rate * (1 - k / self.steps * (1 - self.rate_share))
            v = generator.normal(z) if self.momentum else torch.zeros_like(z)
            for _ in range(self.langevin_steps):
                slope, _ = gradient(misfit, z_0)
                score = (z_hat - z_0) / s**2 - slope
                fresh = (2 * (1 - self.momentum)) ** 0.5 * generator.normal(z)
                v = self.momentum * v + rate**0.5 * score + fresh
                z_0 = z_0 + rate**0.5 * v
            z = z_0 + s_next * generator.normal(z) if s_next else z_0
        return prior.decode(z, shape)

    def _flow(self, prior: LatentDenoiser, z: Tensor, s: float) -> Tensor:
        """Integrates dz = (z - D) / s ds by Euler steps, down to 0."""
        levels = sigma_steps(self.ode_steps, s, min(self.ode_min, s), "karras")
        for t, t_next in pairwise([*levels, 0.0]):
            z_hat = prior.denoise_latents(z, t)
            z = z_hat + t_next / t * (z - z_hat)
        return z
