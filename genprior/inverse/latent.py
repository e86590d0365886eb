"""CSGM: the latent whose decoded image explains the measurement best.

    z = argmin_z ||A G(z) - y||^2 + lambda ||z||^2,   x = G(z)

from several random starts z ~ N(0, I), of which the one with the smallest ||A G(z) - y|| counts.
With lambda = sigma^2 and a linear decoder this is the posterior mean, exactly.

References:
    Compressed Sensing using Generative Models, Bora, Jalal, Price and Dimakis, 2017.
    Adam: A Method for Stochastic Optimization, Kingma and Ba, 2015.

Differs from the authors' code:
    1. ||A G(z) - y||^2 is the sum of the paper; theirs is the mean over the measurements.
    2. lambda is sigma^2 of each image unless it is set; theirs is 0.1 (VAE) or 0.001 (GAN).
    3. The best start is that of the smallest measurement loss, as in the paper; theirs is that
       of the smallest total loss.
    4. All starts of all images are one batch; L-BFGS as an alternative.
    5. The default is 1000 steps, as for their VAE, of size 0.1, as for their GAN: with their
       0.01 for the VAE, Adam was up to 5 % away from the minimum of a linear decoder.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genprior.inverse.base import Solver
from genprior.inverse.lbfgs import Objective, lbfgs
from genprior.noise import Noise
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

    steps: int = 1000
    step_size: float = 0.1
    restarts: int = 10
    penalty: float | None = None
    optimiser: Literal["adam", "lbfgs"] = "adam"

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts) < 1:
            raise ValueError(
                f"steps and restarts must be at least 1, got {self.steps} and {self.restarts}"
            )
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise ValueError(f"step_size must be > 0 and finite, got {self.step_size}")
        if self.penalty is not None and not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ValueError(
                f"penalty must be >= 0 and finite, or None for the square of the noise level, "
                f"got {self.penalty}"
            )
        if self.optimiser not in ("adam", "lbfgs"):
            raise ValueError(f"optimiser must be 'adam' or 'lbfgs', got {self.optimiser!r}")

    @property
    def nfe(self) -> int:
        return self.restarts * (self.steps + 1)

    def solve(
        self, y: Tensor, operator: Operator, prior: Decoder, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        batch, *image = operator.image_shape(y.shape)
        latent = prior.latent_shape(torch.Size((batch, *image)))[1:]
        chains = torch.Size((self.restarts * batch, *image))
        given = self.penalty is not None
        penalty = torch.full_like(noise_std, self.penalty) if given else noise_std**2

        def data_loss(x: Tensor) -> Tensor:
            # start by start, since an operator may hold something for each image of y
            fits = [operator.observed(operator.A(x_k) - y) for x_k in x.split(batch)]
            return torch.cat(fits).flatten(1).square().sum(dim=1)

        def objective(z: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                size = z.flatten(1).square().sum(dim=1)
                loss = data_loss(prior.decode(z, chains)) + penalty.repeat(self.restarts) * size
                gradient = torch.autograd.grad(loss.sum(), z)[0]
            return loss.detach(), gradient

        with torch.no_grad():
            z = generator.normal(y.new_empty(()).expand(batch, self.restarts, *latent))
            z = z.transpose(0, 1).flatten(0, 1)
            if self.optimiser == "adam":
                z = adam(objective, z, self.steps, self.step_size)
            else:
                z = lbfgs(objective, z, self.steps)
            x = prior.decode(z, chains)
            loss = data_loss(x).nan_to_num(nan=torch.inf).reshape(self.restarts, batch)
            best = loss.argmin(dim=0).reshape(1, batch, *[1] * len(image))
            return x.unflatten(0, loss.shape).take_along_dim(best, dim=0)[0]


def adam(objective: Objective, z: Tensor, steps: int, step_size: float) -> Tensor:
    """The last iterate of Adam; arguments as those of `lbfgs`, and the learning rate."""
    z = z.clone()
    optimiser = torch.optim.Adam([z], lr=step_size)
    for _ in range(steps):
        z.grad = objective(z)[1]
        optimiser.step()
    return z
