"""Intermediate-layer optimisation (ILO): CSGM, then descent on successive activations.

    h_j = argmin_h ||A T_j(h) - y||^2   with ||h - h_j^0|| <= r ||h_j^0||

where T_j is the generator after layer j, and h_j^0 the result of the previous stage.

References:
    Intermediate Layer Optimization for Inverse Problems using Deep Generative Models, Daras,
        Dean, Jalal and Dimakis, 2021.

Differs from the authors' code:
    1. The ball is Euclidean, with a radius relative to the norm of the activation; the authors
        use an l1 ball with a radius tuned to each layer.
    2. The loss is the data term alone, without perceptual and geodesic terms.
    3. The learning rate is relative to the RMS of the activation; Adam has one scale per image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.linalg import inner
from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.inverse.optimization.objective import (
    Optimiser,
    check_search,
    squared_misfit,
    with_gradient,
)
from genprior.inverse.optimization.restarts import search_latents
from genprior.operators.base import Operator
from genprior.priors.base import Layered

MOMENTUM, AVERAGING = 0.9, 0.999


@dataclass(frozen=True)
class ILO(Solver):
    """CSGM, then optimisation of intermediate layers.

    Arguments:
        steps: Steps of CSGM, >= 1.
        step_size: Learning rate of CSGM.
        restarts: Random starts of CSGM.
        penalty: lambda of CSGM; None is the square of the noise level of each image.
        optimiser: Optimiser of CSGM.
        stages: Number of layers to optimise after, >= 1; at most all but the last of the prior.
        stage_steps: Steps per stage, >= 1.
        stage_rate: Learning rate of a stage, relative to the RMS of the activations, > 0.
        radius: r >= 0, relative to the norm of the activations.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Layered
    stochastic = False
    uses = "gradient"
    summary = "one image, CSGM, then activations; 1 forward + 1 backward per step"

    steps: int = setting(500, ge=1)
    step_size: float = 0.1
    restarts: int = 4
    penalty: float | None = None
    optimiser: Optimiser = "adam"
    stages: int = 2
    stage_steps: int = 100
    stage_rate: float = 0.02
    radius: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.restarts, self.stages, self.stage_steps) < 1:
            raise ValueError(
                f"restarts, stages and stage_steps must be at least 1, got {self.restarts}, "
                f"{self.stages} and {self.stage_steps}"
            )
        if not 0 < self.stage_rate < float("inf") or not self.radius >= 0:
            raise ValueError(
                f"stage_rate must be > 0 and finite and radius >= 0, got {self.stage_rate} and "
                f"{self.radius}"
            )
        check_search(self.penalty, self.optimiser, self.step_size)

    @property
    def nfe(self) -> int:
        return self.restarts * (self.steps + 1) + self.stages * self.stage_steps + 1

    @property
    def jacobian_products(self) -> int:
        return self.restarts * self.steps + self.stages * self.stage_steps

    @property
    def batch_multiplier(self) -> int:
        return self.restarts

    def solve(
        self, y: Tensor, operator: Operator, prior: Layered, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        shape = operator.image_shape(y.shape)
        layers = prior.layers(shape)
        with torch.no_grad():
            h, _ = search_latents(y, operator, prior, noise_std, generator, self)
            stages = min(self.stages, len(layers) - 1)
            for j in range(stages):
                h = layers[j](h)

                def loss(h: Tensor, first: int = j + 1) -> Tensor:
                    return squared_misfit(prior.rest(h, first, shape), y, operator)

                h = self._descend(loss, h)
            return prior.rest(h, stages, shape)

    def _descend(self, loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """Minimises the loss in the ball around `start`, in units of the RMS of each activation.

        This is Adam with one scale per image instead of one per element. The Euclidean
        projection onto the ball is then the right one, which it is not in Adam's metric.
        """
        objective = with_gradient(loss)
        scale = (inner(start, start) / start[0].numel()).sqrt()
        bound = self.radius * start[0].numel() ** 0.5
        step, momentum, square = torch.zeros_like(start), 0, 0
        for k in range(self.stage_steps):
            g = objective(start + scale * step)[1]
            momentum = MOMENTUM * momentum + (1 - MOMENTUM) * g
            square = AVERAGING * square + (1 - AVERAGING) * inner(g, g) / g[0].numel()
            rms = (square / (1 - AVERAGING ** (k + 1))).sqrt().clamp(min=1e-30)
            rate = self.stage_rate * (0.5 + 0.5 * math.cos(math.pi * k / self.stage_steps))
            step = step - rate * momentum / (1 - MOMENTUM ** (k + 1)) / rms
            length = inner(step, step).sqrt()
            step = step * torch.where(length > bound, bound / length.clamp(min=1e-30), 1)
        return start + scale * step
