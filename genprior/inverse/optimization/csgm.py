"""CSGM: latent optimisation with random restarts (compressed sensing with a generator).

    z = argmin_z ||A G(z) - y||^2 + lambda ||z||^2,   x = G(z)

from several random starts z ~ N(0, I). The result with the smallest ||A G(z) - y|| is returned.
With lambda = sigma^2 and a linear decoder this is the posterior mean, provided that the optimiser
converges: at low noise L-BFGS does, Adam does not. Without noise lambda is 0, and directions of z
that the data do not determine keep their random initial values; `glowip` starts at 0 instead.

References:
    Compressed Sensing using Generative Models, Bora, Jalal, Price and Dimakis, 2017.

Differs from the authors' code:
    1. ||A G(z) - y||^2 is a sum, as in the paper; the code takes the mean over the measurements.
    2. lambda is sigma^2 of each image unless it is set; the code has 0.1 (VAE) or 0.001 (GAN).
    3. The best start has the smallest measurement loss, as in the paper; in the code it has the
       smallest total loss.
    4. All starts of all images are one batch; L-BFGS is available.
    5. The default is 1000 steps, as for the authors' VAE, of size 0.1, as for their GAN. With
       0.01, as for their VAE, Adam was up to 5 % away from the minimum of a linear decoder.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.inverse.optimization.objective import Optimiser, check_search
from genprior.inverse.optimization.restarts import search_latents
from genprior.operators.base import Operator
from genprior.priors.base import Decoder


@dataclass(frozen=True)
class CSGM(Solver):
    """Latent optimisation with random restarts: one point estimate, no samples.

    One step is one forward and one backward pass of every start. One more forward pass selects
    the best start, so `nfe` is restarts (steps + 1).

    Arguments:
        steps: Steps of the optimiser, >= 1.
        step_size: Learning rate of Adam, > 0; L-BFGS does not use it.
        restarts: Random starts, >= 1.
        penalty: lambda >= 0; None is the square of the noise level of each image.
        optimiser: "adam", or "lbfgs", which needs far fewer steps if the decoder is smooth.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Decoder
    stochastic = False
    uses = "gradient"
    summary = "one image in the range of the decoder; 1 forward + 1 backward per step and start"

    steps: int = setting(1000, ge=1)
    step_size: float = 0.1
    restarts: int = 10
    penalty: float | None = None
    optimiser: Optimiser = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1, got {self.restarts}")
        check_search(self.penalty, self.optimiser, self.step_size)

    @property
    def nfe(self) -> int:
        return self.restarts * (self.steps + 1)

    @property
    def jacobian_products(self) -> int:
        return self.restarts * self.steps

    @property
    def batch_multiplier(self) -> int:
        return self.restarts

    def solve(
        self, y: Tensor, operator: Operator, prior: Decoder, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        with torch.no_grad():
            return search_latents(y, operator, prior, noise_std, generator, self)[1]
