"""DDRM, which is DDNM+: each singular coordinate of A is denoised on its own terms.

With A = U diag(s) V^T, coordinates V^T x of the denoised image D, data y' = U^T y / s whose noise
is sigma / s, and the next level t

    s = 0          D + sqrt(1 - eta^2) t (x - D) / sigma_t + eta t n
    t < sigma / s  D + sqrt(1 - eta^2) t (y' - D) / (sigma / s) + eta t n
    else           (1 - eta_b) D + eta_b y' + sqrt(t^2 - (eta_b sigma / s)^2) n

With eta_b = 1 these are the formulas of DDNM+, coordinate by coordinate.

References:
    Denoising Diffusion Restoration Models, Kawar et al., 2022 (DDRM).
    Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model, Wang et al., 2023
    (DDNM+, appendix I).

Differs from the authors' code:
    1. Any operator whose singular vectors are had: masks, circular blur, separable filters with
        any boundary, decimation, each `DecomposablePhysics` of deepinv. Others raise an error.
    2. The first state has mean 1/2, the middle of the range; theirs 0, the middle of theirs.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.core.schedules import Spacing
from genprior.inverse.base import setting
from genprior.inverse.diffusion.sampler import PRIOR_MEAN, DiffusionSolver, images_of, run_levels
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class DDRM(DiffusionSolver):
    """Denoising diffusion restoration.

    Arguments:
        steps: Network evaluations.
        eta: How much of the noise is drawn anew, in [0, 1].
        eta_b: How far the data replace the denoised image, in [0, 1].
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.

    Raises:
        SettingError: When called: the operator has no singular vectors to work with.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples, quick, too narrow; operators with known singular vectors"

    steps: int = setting(20, ge=1)
    eta: float = setting(0.85, ge=0, le=1)
    eta_b: float = setting(1.0, ge=0, le=1)
    spacing: Spacing = field(default="ddpm", kw_only=True)

    def check_compatible(self, operator: Operator, prior: object, y: Tensor) -> None:
        super().check_compatible(operator, prior, y)
        operator.singular(operator.image_shape(y.shape), y)

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        like = images_of(y, operator)
        svd = operator.singular(like.shape, y)
        u, s = svd.data(y), svd.values
        seen = s > 0
        inverse = torch.where(seen, 1 / torch.where(seen, s, 1), 0)
        noise_level = per_image(noise_std, u.real) * inverse
        rest = (1 - self.eta**2) ** 0.5

        def move(x_hat: Tensor, x: Tensor, noise: Tensor, sigma: float, level: float) -> Tensor:
            """All coordinates, from the level sigma of x to the next one."""
            base = x_hat + rest * level * (x - x_hat) / sigma + self.eta * level * noise
            d, n = svd.image(x_hat), svd.image(noise)
            clear = noise_level <= level
            share = torch.where(clear, self.eta_b, rest * level / noise_level.clamp(min=1e-30))
            left = (level**2 - (self.eta_b * noise_level) ** 2).clamp(min=0).sqrt()
            spread = torch.where(clear, left, self.eta * level)
            coordinates = (1 - share) * d + share * inverse * u + spread * n
            return base + svd.back(torch.where(seen, coordinates - svd.image(base), 0))

        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            x_hat = prior.denoise(x, sigma)
            zero = torch.zeros_like(x)
            return move(x_hat, x, zero if noise is None else noise, sigma, sigma_next)

        n, first = generator.normal(like), self.sigmas[0]
        start = torch.full_like(like, PRIOR_MEAN).contiguous() + first * n
        known = (noise_level <= first) & seen
        left = (first**2 - noise_level**2).clamp(min=0).sqrt()
        data = inverse * u + left * svd.image(n)
        start = start + svd.back(torch.where(known, data - svd.image(start), 0))
        return run_levels(like, self.sigmas, generator, step, start)
