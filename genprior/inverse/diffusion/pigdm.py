"""Pseudo-inverse guided diffusion (PiGDM): E[x0 | x, y] under an isotropic covariance.

    r^2 = max(v sigma_t^2 / (v + sigma_t^2), sigma_t^2 - sigma_next^2)
    g = J^T A^T (r^2 A A^T + sigma^2 I)^{-1} (y - A D(x))
    x_hat = D(x) + sigma_t^2 g,    then a DDIM / DDPM step

For an A that is not linear, and sigma = 0, with a pseudo-inverse A^+, A(A^+(A(x))) = A(x):

    g = J^T (A^+(y) - A^+(A(D(x)))) / r^2

A needs no gradient: it may be JPEG compression, and A^+ its decoder.

References:
    Pseudoinverse-Guided Diffusion Models for Inverse Problems, Song et al., 2023.

Differs from the authors' code:
    1. g has weight sigma_t^2, as Tweedie's formula requires. The paper adds r^2 g after the step,
        and its results get worse with more steps. `variant="published"` is the sampler of the
        paper (the authors' code has another weight, and starts at the pseudo-inverse).
    2. v is the authors', 1 on [-1, 1], but r^2 is at least the noise variance that a step removes.
        At the low frequencies of photos the variance is far above v, and guidance is
        sigma_t^2 J / r^2 times too strong. Without the bound, samplers with few steps, or of large
        images, would overshoot more at every step. Where only a tenth of the pixels is known, the
        bound makes convergence slow: set `prior_var`, which removes it, or take more steps.
    3. Where A is not linear and has no closed form of A^+, a local least-squares solution takes
       its place (`NonlinearOperator.pinv`). For phase retrieval, where there are many, use another
       solver.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.random_streams import Noise
from genprior.core.schedules import reverse_step
from genprior.inverse.base import setting
from genprior.inverse.diffusion.sampler import (
    PRIOR_VAR,
    DiffusionSolver,
    denoise_with_vjp,
    images_of,
    run_ddim,
    run_levels,
)
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class PiGDM(DiffusionSolver):
    """Pseudo-inverse guided diffusion.

    It takes operators that are not linear, such as JPEG compression or over-exposure, if their
    measurements have no noise.

    Arguments:
        steps: Network evaluations, each with a backward pass.
        eta: 1 is DDPM, 0 is DDIM.
        variant: "consistent" or "published", see the docstring of this module.
        prior_var: Variance v of a pixel in squared image units, without the bound on r^2. None is
            the authors' v, in the consistent variant with the bound.
        spacing, sigma_max, sigma_min: See `DiffusionSolver`.

    Raises:
        ValueError: The variant is unknown, or a setting is out of its range.
        SettingError: The operator is not linear, and the measurement has noise.
    """

    needs = Denoiser
    stochastic = True
    takes_nonlinear_noise = False
    uses = "prox"  # it uses the pseudo-inverse, which all operators have too
    summary = "samples, by an isotropic covariance"

    eta: float = setting(1.0, ge=0, le=1)
    variant: Literal["consistent", "published"] = "consistent"
    prior_var: float | None = setting(None, gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("consistent", "published"):
            raise ValueError(
                f"variant must be 'consistent' or 'published', got {self.variant!r}"
            )

    @property
    def jacobian_products(self) -> int:
        return self.nfe

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        if not operator.is_linear and (noise_std > 0).any():
            raise SettingError(
                f"solver PiGDM takes noise from linear operators only, and "
                f"{type(operator).__name__} is not: set the noise level to 0, or choose dps, daps "
                f"or diffpir"
            )
        inverse = None if operator.is_linear else operator.pinv(y)
        variance = noise_std**2
        v = self.prior_var or PRIOR_VAR
        bounded = self.prior_var is None and self.variant == "consistent"
        next_sigma = dict(zip(self.sigmas, [*self.sigmas[1:], 0.0], strict=True))

        def guide(x: Tensor, sigma: float) -> tuple[Tensor, Tensor, float]:
            x_hat, vjp = denoise_with_vjp(prior.denoise, x, sigma)
            r2 = v * sigma**2 / (v + sigma**2)
            if bounded:
                r2 = max(r2, sigma**2 - next_sigma[sigma] ** 2)
            Ax = operator.A(x_hat)
            if inverse is None:
                pull = operator.A_adjoint(operator.solve_gram(y - Ax, r2, variance))
            else:
                pull = (inverse - operator.pinv(Ax)) / r2
            return x_hat, vjp(pull), r2

        def consistent(x: Tensor, sigma: float) -> Tensor:
            x_hat, g, _ = guide(x, sigma)
            return x_hat + sigma**2 * g

        def published(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            x_hat, g, r2 = guide(x, sigma)
            return reverse_step(x, x_hat, noise, sigma, sigma_next, self.eta) + r2 * g

        if self.variant == "published":
            return run_levels(images_of(y, operator), self.sigmas, generator, published)
        return run_ddim(y, operator, self.sigmas, generator, consistent, self.eta)
