"""PnP-Flow: gradient steps on the data, and the denoiser of a flow on new noise at rising times.

    z   = x - (1 - t)^alpha A^T (A x - y),          t = 0, 1/N, ..., 1 - 1/N
    x   = mean over n of D(z + sigma n, sigma),     sigma = (1 - t) / (2 t)

References:
    PnP-Flow: Plug-and-Play Image Restoration with Flow Matching, Martin et al., 2025.

Differs from the authors' code:
    1. Any denoiser will do: that of a flow at its state t u + (1 - t) n is D at sigma.
    2. The level of t = 0 is infinite; it is `sigma_max`.
    3. The learning rate is relative to the variance of the noise, as in the paper, and is called
        `step_size`; A is assumed to have norm 1 at most.

The authors tune alpha per task between 0.01 (deblurring, random pixels) and 0.8 (denoising); their
default is 0.5.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class PnPFlow(Solver):
    """PnP-Flow.

    Arguments:
        steps: Number N of times.
        alpha: Exponent of the step size, >= 0.
        step_size: Factor of the step size, > 0.
        averages: Evaluations at each time, each with other noise.
        sigma_max: Largest noise level, in image units.
    """

    needs = Denoiser
    stochastic = False
    summary = "one image; for priors of flow matching, alpha tuned per task"

    steps: int = setting(100, ge=1)
    alpha: float = setting(0.5, ge=0)
    step_size: float = setting(1.0, gt=0)
    averages: int = setting(5, ge=1)
    sigma_max: float = setting(50.0, gt=0)

    @property
    def nfe(self) -> int:
        return self.steps * self.averages

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        with torch.no_grad():
            x = operator.A_adjoint(y)
            for k in range(self.steps):
                t = k / self.steps
                sigma = min((1 - t) / (2 * t), self.sigma_max) if k else self.sigma_max
                gamma = self.step_size * (1 - t) ** self.alpha
                z = x - gamma * operator.A_adjoint(operator.A(x) - y)
                x = sum(
                    prior.denoise(z + sigma * generator.normal(z), sigma)
                    for _ in range(self.averages)
                ) / self.averages
        return x
