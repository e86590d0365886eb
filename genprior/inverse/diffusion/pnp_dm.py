"""Split Gibbs sampling with a diffusion prior (PnP-DM).

    z ~ p(y | z) N(z; x, rho^2)      exactly: the operator's prox of perturbed x and y
    x ~ p(x) N(z; x, rho^2)          reverse diffusion from level rho, started at z

The coupling rho falls from `rho_max` to `rho_min`, by a factor `decay` per sweep. The last x is
returned. It is a sample of the posterior, up to the error that a coupling of rho_min leaves.

References:
    Principled Probabilistic Imaging Using Diffusion Models as Plug-and-Play Priors, Wu et al.,
    2024.

Differs from the authors' code:
    1. The prior step has `inner` DDPM steps from rho down, spaced by noise level. The authors'
        takes those levels of a fixed grid of 100 that are below rho; there are 200 sweeps.
    2. Levels are in units of [0, 1]; the authors', 10 to 0.1, are on [-1, 1].
    3. The authors' prior step is by default the probability-flow ODE, and they keep several
        states of one Markov chain as samples.
    4. With few sweeps rho falls faster than by the authors' factor of 0.9; otherwise it would
        end far from rho_min.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.core.schedules import reverse_step, sigma_steps
from genprior.inverse.base import Solver, setting
from genprior.inverse.diffusion.sampler import PRIOR_MEAN, images_of
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class PnPDM(Solver):
    """Split Gibbs sampling with a diffusion prior.

    Arguments:
        steps: Number of sweeps.
        inner: Network evaluations per sweep.
        rho_max: First coupling, in image units.
        rho_min: Last coupling, in image units, > 0. The smaller it is, the more accurate the
            samples are, and the more slowly the sweeps mix.
        decay: Factor of rho from sweep to sweep, in (0, 1). None is 0.9, or less if otherwise
            less than the last fifth of the sweeps would have rho_min.
        sigma_min: Last level of the reverse diffusion, in image units.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples by split Gibbs sampling; needs many evaluations"

    steps: int = setting(100, ge=1)
    inner: int = 5
    rho_max: float = setting(5.0, gt=0)
    rho_min: float = setting(0.05, gt=0)
    decay: float | None = None
    sigma_min: float = setting(0.005, gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner < 1 or not (self.decay is None or 0 < self.decay < 1):
            raise ValueError(
                f"inner must be at least 1 and decay in (0, 1), got {self.inner}, {self.decay}"
            )
        if not 0 < self.sigma_min <= self.rho_min <= self.rho_max:
            raise ValueError(
                f"levels must satisfy 0 < sigma_min <= rho_min <= rho_max (image units), got "
                f"{self.sigma_min}, {self.rho_min}, {self.rho_max}"
            )

    @property
    def nfe(self) -> int:
        return self.steps * self.inner

    @property
    def couplings(self) -> list[float]:
        """rho of each sweep, in image units."""
        decay = self.decay
        if decay is None:
            falls = max(1, min(0.8 * self.steps, self.steps - 1))
            decay = min(0.9, (self.rho_min / self.rho_max) ** (1 / falls))
        return [max(self.rho_max * decay**k, self.rho_min) for k in range(self.steps)]

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        with torch.no_grad():
            x = torch.full_like(images_of(y, operator), PRIOR_MEAN).contiguous()
            for rho in self.couplings:
                n = per_image(noise_std, y) * operator.mask_unmeasured(generator.normal(y))
                perturbed = x + rho * generator.normal(x)
                x = operator.prox(perturbed, y + n, noise_std**2 / rho**2)
                levels = sigma_steps(self.inner, rho, self.sigma_min)
                for sigma, sigma_next in zip(levels, [*levels[1:], 0.0], strict=True):
                    noise = generator.normal(x) if sigma_next else None
                    x_hat = prior.denoise(x, sigma)
                    x = reverse_step(x, x_hat, noise, sigma, sigma_next, eta=1.0)
        return x
