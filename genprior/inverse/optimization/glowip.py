"""GlowIP: maximum a posteriori latent of a normalising flow.

    z = argmin_z ||A G(z) - y||^2 + gamma ||z||^p,  x = G(z),  from z = 0

With a linear decoder, gamma = sigma^2 and p = 2 the result is exactly the posterior mean. For a
flow the penalty is a surrogate, since the log-density of the image has a log-determinant too.

References:
    Invertible Generative Models for Inverse Problems: Mitigating Representation Error and
        Dataset Bias, Asim, Daniels, Leong, Ahmed and Hand, 2020.

Differs from the authors' code:
    1. gamma is sigma^2 of each image and p = 2 unless they are set; the authors use p = 1 with
        gamma tuned to each task (inpainting: 0.05; denoising: 0.01, 0.25, 1, 2.5 at sigma 0.01,
        0.05, 0.1, 0.2).
    2. The gradient of ||z|| at z = 0 is defined as 0.
    3. L-BFGS runs separately for every image of a batch, with the strong Wolfe conditions.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.inverse.optimization.objective import (
    Optimiser,
    check_search,
    minimise,
    squared_misfit,
)
from genprior.inverse.optimization.restarts import penalties
from genprior.operators.base import Operator
from genprior.priors.base import Decoder


@dataclass(frozen=True)
class GlowIP(Solver):
    """Latent optimisation from z = 0; most of the regularisation comes from this start.

    Arguments:
        steps: Evaluations of the decoder and its gradient, >= 1.
        penalty: gamma >= 0; None is the square of the noise level of each image.
        power: p, 2 or 1.
        optimiser: "lbfgs" or "adam".
        step_size: Learning rate of Adam.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Decoder
    stochastic = False
    uses = "gradient"
    summary = "one image, most probable latent from z = 0; 1 forward + 1 backward per step"

    steps: int = setting(100, ge=1)
    penalty: float | None = None
    power: Literal[1, 2] = 2
    optimiser: Optimiser = "lbfgs"
    step_size: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_search(self.penalty, self.optimiser, self.step_size)
        if self.power not in (1, 2):
            raise ValueError(f"power must be 1 or 2, got {self.power}")

    @property
    def nfe(self) -> int:
        return self.steps + 1

    @property
    def jacobian_products(self) -> int:
        return self.steps

    def solve(
        self, y: Tensor, operator: Operator, prior: Decoder, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        shape = operator.image_shape(y.shape)
        penalty = penalties(self.penalty, noise_std)

        def loss(z: Tensor) -> Tensor:
            norm = z.flatten(1).square().sum(dim=1)
            if self.power == 1:
                norm = torch.where(norm > 0, torch.where(norm > 0, norm, 1).sqrt(), 0)
            return squared_misfit(prior.decode(z, shape), y, operator) + penalty * norm

        with torch.no_grad():
            z = y.new_zeros(prior.latent_shape(shape))
            z = minimise(loss, z, self.steps, self.optimiser, self.step_size)
            return prior.decode(z, shape)
