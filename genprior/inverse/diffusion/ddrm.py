"""Denoising diffusion restoration (DDRM, DDNM+): one update per singular coordinate of A.

Let A = U diag(s) V^T, D the denoised image, y' = U^T y / s the data, with noise sigma / s, and t
the next level. Each coordinate of V^T x is updated on its own (V^T is left out):

    s = 0          D + sqrt(1 - eta^2) t (x - D) / sigma_t + eta t n
    t < sigma / s  D + sqrt(1 - eta^2) t (y' - D) / (sigma / s) + eta t n
    else           (1 - eta_b) D + eta_b y' + sqrt(t^2 - (eta_b sigma / s)^2) n

With eta_b = 1 these are the formulas of DDNM+, coordinate by coordinate.

References:
    Denoising Diffusion Restoration Models, Kawar et al., 2022 (DDRM).
    Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model, Wang et al., 2023
    (DDNM+, appendix I).

Differs from the authors' code:
    1. It takes any operator with known singular vectors: masks, circular blur, separable filters
        with any boundary, decimation, each `DecomposablePhysics` of deepinv. Others raise an
        error.
    2. The first state has mean 1/2, the middle of [0, 1]; the authors' has mean 0, the middle of
        [-1, 1].
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
        eta: Share of the noise's standard deviation that is drawn anew, in [0, 1].
        eta_b: Weight of data that are less noisy than the next level, in [0, 1].
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.

    Raises:
        ValueError: A setting is out of its range.
        SettingError: When called: the singular vectors of the operator are not known.
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
        measured = s > 0
        inverse = torch.where(measured, 1 / torch.where(measured, s, 1), 0)
        noise_level = per_image(noise_std, u.real) * inverse
        kept = (1 - self.eta**2) ** 0.5

        def update(x_hat: Tensor, x: Tensor, noise: Tensor, sigma: float, level: float) -> Tensor:
            """Updates all coordinates of x, from level sigma to `level`."""
            base = x_hat + kept * level * (x - x_hat) / sigma + self.eta * level * noise
            d, n = svd.image(x_hat), svd.image(noise)
            clean = noise_level <= level
            weight = torch.where(clean, self.eta_b, kept * level / noise_level.clamp(min=1e-30))
            std = (level**2 - (self.eta_b * noise_level) ** 2).clamp(min=0).sqrt()
            spread = torch.where(clean, std, self.eta * level)
            coordinates = (1 - weight) * d + weight * inverse * u + spread * n
            return base + svd.back(torch.where(measured, coordinates - svd.image(base), 0))

        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            x_hat = prior.denoise(x, sigma)
            zero = torch.zeros_like(x)
            return update(x_hat, x, zero if noise is None else noise, sigma, sigma_next)

        n, first = generator.normal(like), self.sigmas[0]
        start = torch.full_like(like, PRIOR_MEAN).contiguous() + first * n
        known = (noise_level <= first) & measured
        std = (first**2 - noise_level**2).clamp(min=0).sqrt()
        data = inverse * u + std * svd.image(n)
        start = start + svd.back(torch.where(known, data - svd.image(start), 0))
        return run_levels(like, self.sigmas, generator, step, start)
