"""ReSample: hard data consistency in latent diffusion, and a return to the noise level.

Every `interval` levels, an estimate z_0 of a few DDIM steps is made to fit the data, in pixels at
high noise levels (x = D(z_0), then back by E), in latents at low ones, and is drawn back to the
level of the state z_t:

    N((v sqrt(a) z_0 + (1 - a) z_t) / (v + 1 - a), v (1 - a) / (v + 1 - a))
    v = strength (1 - a') / (1 - a) (1 - a / a')          a, a': signal before and after the step

References:
    Solving Inverse Problems with Latent Diffusion Models via Hard Data Consistency, Song et al.,
        2024.

Differs from the authors' code:
    1. In pixels, |y - A x|^2 + (noise / pixel_std)^2 |x - D(z_0)|^2 is minimised exactly; the
        authors take up to 2000 steps of AdamW on the first term.
    2. In latents, Adam stops for an image when the residual has the noise level; the authors' stop
        at a fixed one, without noise.
    3. Noise levels are those of DDPM; z_0 is E[z_0 | z_t], where the authors' formula has a factor
        sqrt(1 - a) too much.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.core.schedules import reverse_step
from genprior.inverse.base import Solver, setting
from genprior.inverse.latent.schedule import ddpm_levels, gradient, latents_like, norms, signal
from genprior.operators.base import Operator
from genprior.priors.base import LatentDenoiser

BETAS, EPSILON = (0.9, 0.999), 1e-8
# Smallest RMS of a residual that the optimisation aims at, half the authors' for [-1, 1].
SMALLEST_RESIDUAL = 5e-4


@dataclass(frozen=True)
class ReSample(Solver):
    """ReSample.

    Arguments:
        steps: Noise levels.
        interval: Levels between two fits of the data.
        ahead: DDIM steps from the state to the estimate that is fitted.
        strength: Factor of the variance v, > 0; 40 in the paper.
        guidance: Step size of DPS between the fits, >= 0, in units of the signal a.
        pixel_std: Standard deviation of the estimate in pixels, in image units.
        latent_steps: Steps of Adam of a fit in latents, at most.
        step_size: Their step size.
    """

    needs = LatentDenoiser
    stochastic = True
    uses = "gradient"
    summary = "samples that fit the data; their spread is set by strength"

    steps: int = setting(500, ge=1)
    interval: int = setting(10, ge=1)
    ahead: int = setting(5, ge=1)
    strength: float = setting(40.0, gt=0)
    guidance: float = setting(0.5, ge=0)
    pixel_std: float = setting(0.1, gt=0)
    latent_steps: int = setting(500, ge=1)
    step_size: float = setting(5e-3, gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._levels

    @property
    def _levels(self) -> list[float]:
        return ddpm_levels(self.steps)

    def _fits(self) -> tuple[int, int, int]:
        """Returns how many fits are in pixels and in latents, and the DDIM steps before them."""
        count, pixels, latents, ahead = len(self._levels), 0, 0, 0
        for index in range(count):
            if self._is_fitted(index, count):
                pixels, latents = pixels + (index >= count // 3), latents + (index < count // 3)
                ahead += min(self.ahead, index)
        return pixels, latents, ahead

    def _is_fitted(self, index: int, count: int) -> bool:
        return 0 < index <= count - count // 3 and index % self.interval == 0

    @property
    def nfe(self) -> int:
        pixels, latents, ahead = self._fits()
        guided = 2 * len(self._levels)
        return guided + ahead + 2 * pixels + (latents + 1) * self.latent_steps + 1

    @property
    def jacobian_products(self) -> int:
        return 2 * len(self._levels) + (self._fits()[1] + 1) * self.latent_steps

    @property
    def supports_windows(self) -> bool:
        return False

    @torch.no_grad()
    def solve(
        self, y: Tensor, operator: Operator, prior: LatentDenoiser, noise_std: Tensor,
        generator: Noise,
    ) -> Tensor:
        shape, like = operator.image_shape(y.shape), latents_like(y, operator, prior)
        levels = [*self._levels, 0.0]
        count = len(levels) - 1
        z = (1 + levels[0] ** 2) ** 0.5 * generator.normal(like)
        for k in range(count):
            s, s_next, index = levels[k], levels[k + 1], count - k - 1
            z = self._guided(z, s, s_next, y, operator, prior, shape)
            if self._is_fitted(index, count):
                z_0, moved = z, z
                for j in range(k + 1, min(k + 1 + self.ahead, count)):
                    z_0 = prior.denoise_latents(moved, levels[j])
                    moved = reverse_step(moved, z_0, None, levels[j], levels[j + 1], 0.0)
                if index >= count // 3:
                    x = operator.prox(prior.decode(z_0, shape), y,
                                      (noise_std / self.pixel_std) ** 2)
                    z_0 = prior.encode(x)
                else:
                    z_0 = self._fit(z_0, y, operator, prior, noise_std, shape)
                z = self._redrawn(z, z_0, s, s_next, generator)
        return prior.decode(self._fit(z, y, operator, prior, noise_std, shape), shape)

    def _guided(
        self, z: Tensor, s: float, s_next: float, y: Tensor, operator: Operator,
        prior: LatentDenoiser, shape: torch.Size,
    ) -> Tensor:
        """Takes a DDIM step and a gradient step of DPS."""

        def misfit(z: Tensor) -> tuple[Tensor, Tensor]:
            z_hat = prior.denoise_latents(z, s)
            residual = operator.mask_unmeasured(y - operator.A(prior.decode(z_hat, shape)))
            return 2 * norms(residual), z_hat

        slope, z_hat = gradient(misfit, z)
        a, a_next = signal(s), signal(s_next)
        z = reverse_step(z, z_hat, None, s, s_next, 0.0)
        return z - self.guidance * a * slope / (a * a_next) ** 0.5

    def _redrawn(
        self, z: Tensor, z_0: Tensor, s: float, s_next: float, generator: Noise
    ) -> Tensor:
        """Draws a state at s_next from an estimate z_0 and the state z at s_next."""
        a, a_next = signal(s), signal(s_next)
        v = self.strength * (1 - a_next) / (1 - a) * (1 - a / a_next)
        state = a_next**0.5 * z
        mean = (v * a_next**0.5 * z_0 + (1 - a_next) * state) / (v + 1 - a_next)
        std = (v * (1 - a_next) / (v + 1 - a_next)) ** 0.5
        return (mean + std * generator.normal(z)) / a_next**0.5

    def _fit(
        self, z: Tensor, y: Tensor, operator: Operator, prior: LatentDenoiser, noise_std: Tensor,
        shape: torch.Size,
    ) -> Tensor:
        """Minimises the mean squared residual by Adam, until it has the noise level."""
        target = noise_std.clamp(min=SMALLEST_RESIDUAL) ** 2
        measured = operator.num_measurements(y)
        first, second = torch.zeros_like(z), torch.zeros_like(z)

        def loss(z: Tensor) -> tuple[Tensor, Tensor]:
            residual = operator.mask_unmeasured(y - operator.A(prior.decode(z, shape)))
            mean = residual.flatten(1).square().sum(dim=1) / measured
            return 4 * mean, mean

        for k in range(1, self.latent_steps + 1):
            slope, mean = gradient(loss, z)
            first = BETAS[0] * first + (1 - BETAS[0]) * slope
            second = BETAS[1] * second + (1 - BETAS[1]) * slope**2
            step = first / (1 - BETAS[0] ** k)
            step = step / ((second / (1 - BETAS[1] ** k)).sqrt() + EPSILON)
            active = (mean > target).reshape(-1, *[1] * (z.ndim - 1))
            z = torch.where(active, z - self.step_size * step, z)
        return z
