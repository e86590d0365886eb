"""Guidance by the covariance of a Gaussian prior, without backward passes (JFPS).

    C = (S^{-1} + I / sigma_t^2)^{-1} = S - S (S + sigma_t^2 I)^{-1} S
    x_hat = D(x) + C A^T (A C A^T + sigma^2 I)^{-1} (y - A D(x)),   then a DDIM / DDPM step

S is the covariance of a Gaussian prior, for example a texture, or that of the model `photos`. If
the prior itself is Gaussian with covariance S, this is `mmps`.

References:
    Learning Diffusion Priors from Observations by Expectation Maximization, Rozet et al.,
    2024 (the heuristics (S^{-1} + I / sigma_t^2)^{-1} for C).

Differs from the authors' code:
    1. S may be the covariance of any Gaussian prior; the authors' code (azula) takes a matrix.
    2. Conjugate gradient has twenty iterations, since its products are cheap; the authors' has
        one. Sixty would change an estimate at the first levels by a quarter, but hardly the
        samples of photos (0.001 dB).
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import setting
from genprior.inverse.diffusion.krylov import Linear
from genprior.inverse.diffusion.moments import Moments, correction
from genprior.inverse.diffusion.photo_covariance import PHOTO_VAR, photo_filter
from genprior.inverse.diffusion.sampler import DiffusionSolver, run_ddim
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser, Gaussian


@dataclass(frozen=True)
class JFPS(DiffusionSolver):
    """Guidance by the covariance of a Gaussian prior.

    Arguments:
        steps: Network evaluations; there are no backward passes.
        eta: 1 is DDPM, 0 is DDIM.
        covariance: A Gaussian prior with covariance S, or "photos" or "isotropic".
        prior_var: Variance of a pixel for "isotropic", in squared image units.
        iterations: Iterations of conjugate gradient.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.

    Raises:
        ValueError: The covariance is none of these, or a setting is out of its range.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples without backward passes; covariance of a texture or of photos"

    eta: float = setting(1.0, ge=0, le=1)
    covariance: Gaussian | Literal["photos", "isotropic"] = "photos"
    prior_var: float = setting(PHOTO_VAR, gt=0)
    iterations: int = setting(20, ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("photos", "isotropic")
        if not isinstance(self.covariance, Gaussian) and self.covariance not in known:
            raise ValueError(
                f"covariance must be a Gaussian prior, 'photos' or 'isotropic', got "
                f"{self.covariance!r}"
            )

    @property
    def supports_windows(self) -> bool:
        return not isinstance(self.covariance, Gaussian)  # it may have one image size only

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        def estimate(x: Tensor, sigma: float) -> Tensor:
            at = Moments(prior.denoise(x, sigma), self._cov(x, sigma), sigma)
            r = y - operator.A(at.mean)
            return at.mean + correction(
                r, operator, at, noise_std**2, self.iterations, symmetric=True
            )

        return run_ddim(y, operator, self.sigmas, generator, estimate, self.eta)

    def _cov(self, x: Tensor, sigma: float) -> Linear:
        """Returns the map v -> C v at level sigma, for images v of the shape of x."""
        S = self.covariance
        if isinstance(S, Gaussian):  # its denoiser is affine, with slope C / sigma^2
            return lambda v: sigma**2 * (
                S.denoise(S.mean(v.shape).to(v) + v, sigma) - S.mean(v.shape).to(v)
            )
        if S == "isotropic":
            return lambda v: self.prior_var * sigma**2 / (self.prior_var + sigma**2) * v
        return photo_filter(x, lambda S: 1 / (1 / S + 1 / sigma**2))
