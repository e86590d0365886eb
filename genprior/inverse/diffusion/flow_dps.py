"""FlowDPS: steps of a flow towards a clean image that was moved to the data, with renewed noise.

With the share w of noise in the state, w = s / (1 + s), s = 2 sigma:

    x_hat = D(x, sigma),   n_hat = (x - x_hat) / sigma
    x_y   = x_hat after K gradient steps on |y - A x|^2 / 2
    x_0   = (1 - w) x_hat + w x_y
    n     = sqrt(w') n_hat + sqrt(1 - w') n_new,       x' = x_0 + sigma' n

References:
    FlowDPS: Flow-Driven Posterior Sampling for Inverse Problems, Kim, Kim and Ye, 2025.

Differs from the authors' code:
    1. It works on images, with the gradient of A itself; the authors' works on latents of Stable
        Diffusion 3, through its decoder, and with the gradient of the norm, not of its square,
        whose step size is 15 or 30 for these latents.
    2. There is no text and no guidance.
    3. The first share of noise is that of `sigma_max`, 0.99, not 1.
"""

from dataclasses import dataclass

from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.inverse.diffusion.sampler import images_of, run_levels
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class FlowDPS(Solver):
    """FlowDPS on images.

    Arguments:
        steps: Number of times.
        shift: Shift of the times towards noise, > 0; 1 is uniform, 3 that of Stable Diffusion 3.
        gradient_steps: Gradient steps K on the data at each time.
        step_size: Their step size, > 0; A is assumed to have norm 1 at most.
        sigma_max: Largest noise level, in image units.
    """

    needs = Denoiser
    stochastic = True
    summary = "samples, of priors of flow matching; the spread is not that of the posterior"

    steps: int = setting(28, ge=1)
    shift: float = setting(3.0, gt=0)
    gradient_steps: int = setting(3, ge=1)
    step_size: float = setting(1.0, gt=0)
    sigma_max: float = setting(50.0, gt=0)

    @property
    def sigmas(self) -> list[float]:
        """Noise levels, decreasing, in image units."""
        shares = [1 - k / self.steps for k in range(self.steps)]
        shifted = [self.shift * w / (1 + (self.shift - 1) * w) for w in shares]
        return [min(w / (1 - w) / 2, self.sigma_max) if w < 1 else self.sigma_max for w in shifted]

    @property
    def nfe(self) -> int:
        return self.steps

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
            x_hat = prior.denoise(x, sigma)
            x_y = x_hat
            for _ in range(self.gradient_steps):
                x_y = x_y - self.step_size * operator.A_adjoint(operator.A(x_y) - y)
            share = 2 * sigma / (1 + 2 * sigma)
            x_0 = (1 - share) * x_hat + share * x_y
            if noise is None:
                return x_0
            n_hat, kept = (x - x_hat) / sigma, 2 * sigma_next / (1 + 2 * sigma_next)
            return x_0 + sigma_next * (kept**0.5 * n_hat + (1 - kept) ** 0.5 * noise)

        return run_levels(images_of(y, operator), self.sigmas, generator, step)
