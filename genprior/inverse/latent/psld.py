"""Posterior sampling with latent diffusion (PSLD): DPS in latents, and a term that glues them.

    z'  = DDIM(z, z_hat) - grad_z (omega |y - A D(z_hat)| + gamma |z_hat - E(P(D(z_hat)))|)
    P(x) = A^T y + x - A^T A x

References:
    Solving Linear Inverse Problems Provably via Posterior Sampling with Latent Diffusion Models,
        Rout et al., 2023.

Differs from the authors' code:
    1. Norms are per image; the authors' are over the batch.
    2. Noise levels are those of DDPM; latent diffusion was trained with another linear schedule.
    3. E is the mean of the encoder, not a draw.
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


@dataclass(frozen=True)
class PSLD(Solver):
    """Posterior sampling with latent diffusion.

    Arguments:
        steps: Noise levels, each with a pass through denoiser, decoder and encoder, and back.
        omega: Weight of the data, >= 0, for images in [-1, 1].
        gamma: Weight of the gluing term, >= 0.
        eta: 0 is DDIM, 1 is DDPM.
    """

    needs = LatentDenoiser
    stochastic = True
    summary = "samples; the published step does not use the noise level"

    steps: int = setting(1000, ge=1)
    omega: float = setting(1.0, ge=0)
    gamma: float = setting(0.1, ge=0)
    eta: float = setting(0.0, ge=0, le=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = ddpm_levels(self.steps)  # raises an error if there are too many

    @property
    def nfe(self) -> int:
        return 3 * len(ddpm_levels(self.steps)) + 1

    @property
    def jacobian_products(self) -> int:
        return 3 * len(ddpm_levels(self.steps))

    @property
    def supports_windows(self) -> bool:
        return False

    @torch.no_grad()
    def solve(
        self, y: Tensor, operator: Operator, prior: LatentDenoiser, noise_std: Tensor,
        generator: Noise,
    ) -> Tensor:
        shape, like = operator.image_shape(y.shape), latents_like(y, operator, prior)
        levels = ddpm_levels(self.steps)
        z = (1 + levels[0] ** 2) ** 0.5 * generator.normal(like)
        for s, s_next in zip(levels, [*levels[1:], 0.0], strict=True):

            def misfit(z: Tensor, s: float = s) -> tuple[Tensor, Tensor]:
                z_hat = prior.denoise_latents(z, s)
                x_hat = prior.decode(z_hat, shape)
                Ax = operator.A(x_hat)
                glued = x_hat + operator.A_adjoint(y - Ax)
                data = 2 * norms(operator.mask_unmeasured(y - Ax))
                return self.omega * data + self.gamma * norms(prior.encode(glued) - z_hat), z_hat

            slope, z_hat = gradient(misfit, z)
            noise = generator.normal(z) if s_next and self.eta else None
            z = reverse_step(z, z_hat, noise, s, s_next, self.eta)
            z = z - slope / (signal(s) * signal(s_next)) ** 0.5
        return prior.decode(z, shape)
