"""Decoupled annealing posterior sampling (DAPS): estimate x0, draw it given y, add new noise.

    x_hat = end of the probability-flow ODE from x          (a few Euler steps)
    x0 ~ N(x0; x_hat, s^2 I) p(y | x0)                      (the kernel)
    x_next = x0 + s_next n

The noise of every level is drawn anew, which decouples the levels. Kernels:

    "published"  100 Langevin steps, with the authors' tau instead of the sigma of the data
    "isotropic"  an exact draw from the same distribution, with sigma: the prox of x_hat and y,
                 both perturbed
    "exact"      N(D(x), C) instead of N(x_hat, s^2 I), with C = s^2 D'(x), drawn as in
                 `moment-matched`; no ODE. DAPS is then exact for Gaussian priors, if
                 `iterations` suffice for convergence

References:
    Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing, Zhang et al.,
    2024.

Differs from the authors' code:
    1. Levels, tau and rate are in units of [0, 1]. The authors' values, 100 to 0.1, 0.01 and
        1e-4, are for images in [-1, 1].
    2. tau and the rate are tuned for noise of 0.025 on [0, 1], and are not adapted: at other noise
        levels the published kernel is wrong. Its rate is at the limit of stability for an A of
        norm 1. It diverges if A amplifies, as a blur with replicated borders does.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.core.schedules import sigma_steps
from genprior.inverse.base import Solver, setting
from genprior.inverse.diffusion.moments import draw_given_data, draw_prior, moments
from genprior.inverse.diffusion.sampler import images_of, run_levels
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

KERNELS = ("published", "isotropic", "exact")


@dataclass(frozen=True)
class DAPS(Solver):
    """Decoupled annealing posterior sampling.

    Arguments:
        steps: Number of levels, with the spacing of Karras et al.
        kernel: "published", "isotropic" or "exact", see the docstring of this module.
        ode_steps: Network evaluations at each level; the exact kernel takes one.
        sigma_max: First level, in image units.
        sigma_min: Last level, in image units; the published kernel stops one level before it.
        ode_min: Level at which the ODE ends ("published"), or at which its last step begins.
        langevin_steps, rate, rate_end, tau: Settings of the published kernel; the rate falls
            linearly from `rate` towards `rate_end`.
        iterations, root_products: Settings of the exact kernel, see `moment-matched`.

    Raises:
        ValueError: The kernel is unknown, or a setting is out of its range.
    """

    needs = Denoiser
    stochastic = True
    uses = "gradient"
    summary = "samples, intervals too wide, or tuned to a noise level of 0.025"

    steps: int = setting(200, ge=1)
    kernel: Literal["published", "isotropic", "exact"] = "published"
    ode_steps: int = setting(5, ge=1)
    sigma_max: float = setting(50.0, gt=0)
    sigma_min: float = setting(0.05, gt=0)
    ode_min: float = setting(0.005, gt=0)
    langevin_steps: int = setting(100, ge=1)
    rate: float = setting(2.5e-5, gt=0)
    rate_end: float = setting(2.5e-7, gt=0)
    tau: float = setting(0.005, gt=0)
    iterations: int = setting(3, ge=1)
    root_products: int = setting(2, ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {self.kernel!r}")
        _ = self.sigmas  # raises an error if the levels are invalid

    @property
    def sigmas(self) -> list[float]:
        """Noise levels, decreasing, in image units."""
        levels = sigma_steps(self._levels, self.sigma_max, self.sigma_min, "karras")
        return levels[: self.steps]

    @property
    def _levels(self) -> int:
        """Length of the schedule; the authors drop its last level: `rate_end` is not reached."""
        return self.steps + (self.kernel == "published")

    @property
    def nfe(self) -> int:
        return self.steps * (1 if self.kernel == "exact" else self.ode_steps)

    @property
    def jacobian_products(self) -> int:
        exact = self.kernel == "exact"
        return self.steps * (self.iterations + self.root_products) if exact else 0

    def check_compatible(self, operator: Operator, prior: object, y: Tensor) -> None:
        super().check_compatible(operator, prior, y)
        if not (operator.is_linear or self.kernel == "published"):
            raise SettingError(
                f"the kernel {self.kernel!r} of daps needs a linear operator, and "
                f"{type(operator).__name__} is not: set kernel to 'published'"
            )

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        rate_change = (self.rate_end - self.rate) / self._levels
        rate_at = {sigma: self.rate + k * rate_change for k, sigma in enumerate(self.sigmas)}
        variance = noise_std**2

        def exact(x: Tensor, sigma: float) -> Tensor:
            at = moments(prior, x, sigma)
            xi = draw_prior(prior, at, self.root_products, generator)
            n = generator.normal(y)
            return draw_given_data(y, operator, at, xi, n, variance, self.iterations)

        def isotropic(x: Tensor, sigma: float) -> Tensor:
            perturbed = self._flow(prior, x, sigma) + sigma * generator.normal(x)
            n = per_image(noise_std, y) * operator.mask_unmeasured(generator.normal(y))
            return operator.prox(perturbed, y + n, variance / sigma**2)

        def langevin(x: Tensor, sigma: float) -> Tensor:
            x = x_hat = self._flow(prior, x, sigma)
            rate = rate_at[sigma]
            for _ in range(self.langevin_steps):
                Ax, pull = operator.value_and_vjp(x)
                fit = 2 * pull(Ax - y) / self.tau**2
                drift = fit + (x - x_hat) / sigma**2
                x = x - rate * drift + (2 * rate) ** 0.5 * generator.normal(x)
            return x

        kernel = {"exact": exact, "isotropic": isotropic, "published": langevin}[self.kernel]

        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            x0 = kernel(x, sigma)
            return x0 if noise is None else x0 + sigma_next * noise

        return run_levels(images_of(y, operator), self.sigmas, generator, step)

    def _flow(self, prior: Denoiser, x: Tensor, sigma: float) -> Tensor:
        """Integrates dx = (x - D) / s ds by Euler steps, down to 0; the last step returns D.

        The published kernel stops at `ode_min` instead.
        """
        published = self.kernel == "published"
        end = min(self.ode_min, sigma)
        levels = sigma_steps(self.ode_steps + published, sigma, end, "karras")
        for s, s_next in pairwise(levels if published else [*levels, 0.0]):
            x_hat = prior.denoise(x, s)
            x = x_hat + s_next / s * (x - x_hat)
        return x
