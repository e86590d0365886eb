"""CSGM: the latent whose decoded image explains the measurement best.

    z = argmin_z ||A G(z) - y||^2 + lambda ||z||^2,   x = G(z)

from several random starts z ~ N(0, I), of which the one with the smallest ||A G(z) - y|| counts.
With lambda = sigma^2 and a linear decoder this is the posterior mean, if the search arrives: with
little noise L-BFGS does, and Adam does not. Without noise lambda is 0, and what the data do not
tell stays as the random start has it; `glowip` starts at 0.

References:
    Compressed Sensing using Generative Models, Bora, Jalal, Price and Dimakis, 2017.

Differs from the authors' code:
    1. ||A G(z) - y||^2 is the sum of the paper; theirs is the mean over the measurements.
    2. lambda is sigma^2 of each image unless it is set; theirs is 0.1 (VAE) or 0.001 (GAN).
    3. The best start is that of the smallest measurement loss, as in the paper; theirs is that
       of the smallest total loss.
    4. All starts of all images are one batch; L-BFGS as an alternative.
    5. The default is 1000 steps, as for their VAE, of size 0.1, as for their GAN: with their
       0.01 for the VAE, Adam was up to 5 % away from the minimum of a linear decoder.
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
    """Latent optimisation with random restarts. Only the best answer counts: no samples.

    One step is one forward and one backward pass of every start; one more forward pass tells
    the best start, so `nfe` is restarts (steps + 1).

    Arguments:
        steps: Steps of the optimiser, >= 1.
        step_size: Learning rate of Adam, > 0; L-BFGS finds its own.
        restarts: Random starts, >= 1.
        penalty: lambda >= 0; None is the square of the noise level of each image.
        optimiser: "adam", or "lbfgs": far fewer steps where the decoder is smooth.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Decoder
    stochastic = False
    summary = "one picture that the decoder can draw; 1 forward + 1 backward a step and start"

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
