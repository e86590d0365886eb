"""Maximum a posteriori (MAP) image under a prior with an explicit density.

    x = argmin_x ||A x - y||^2 / (2 sigma^2) - log p(x)

With a Gaussian density this is exactly the posterior mean.

References:
    Invertible Generative Models for Inverse Problems: Mitigating Representation Error and
        Dataset Bias, Asim, Daniels, Leong, Ahmed and Hand, 2020.

Differs from the authors' code:
    1. It is the default solver of a flow on photos: on crops of training photos with half of the
        pixels missing it reaches 31.4 dB, GlowIP 28.9, the initial image (`smooth_start`) 30.9.
    2. Adam has betas 0.8 and 0.9, since it has few steps: 36 steps were within 0.15 dB of 60 steps
        with the usual betas on blur, super-resolution and holes, within 0.3 dB on strong blur and
        on noise of 0.1. Above that noise level the initial image is smoother: denoising at 0.2
        gives 24.7 dB, and 23.1 dB from the initial image of the other tasks.
    3. log p(x) has a weight. It is 0.4 for flows trained with noise, whose most probable image is
        too smooth (benchmarks/recipes.md), and 1 for other densities.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.inverse.optimization.objective import (
    Optimiser,
    adam,
    check_search,
    minimise,
    squared_misfit,
    with_gradient,
)
from genprior.inverse.tikhonov import WEIGHT, smooth_start
from genprior.operators.base import Operator
from genprior.priors.base import Density

NOISE_FLOOR = 0.001
BETAS = (0.8, 0.9)
# Above this noise level the steps of Adam grow in proportion to the noise level.
LONG_STEP_NOISE = 0.04
# Above this noise level the initial image is smoother, with a larger Tikhonov weight.
SMOOTH_START_NOISE = 0.1


@dataclass(frozen=True)
class MAP(Solver):
    """Maximisation of the log-posterior of the image, from the Tikhonov solution.

    For noise-free data, Adam projects every iterate onto the images that fit the data exactly.

    Arguments:
        steps: Evaluations of the log-density and its gradient, >= 1.
        weight: Weight of the log-density, > 0; 1 is the posterior. None: the `map_weight` of the
            prior, which is 1 except for flows trained with noise.
        optimiser: "adam", or "lbfgs" for nearly Gaussian densities: with a flow its long steps
            reach modes of the density that are far from any photo.
        step_size: Initial learning rate of Adam, in units of [0, 1]; it decays linearly to 0.
            Above a noise level of 0.04 it grows in proportion to the noise level. None: the
            `map_step_size` of the prior, 0.01 except for flows trained with noise.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Density
    stochastic = False
    uses = "gradient"
    summary = "one image, the most probable; 1 forward + 1 backward per step"

    steps: int = setting(36, ge=1)
    weight: float | None = setting(None, gt=0)
    optimiser: Optimiser = "adam"
    step_size: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_search(None, self.optimiser, self.step_size)

    @property
    def nfe(self) -> int:
        return self.steps

    @property
    def jacobian_products(self) -> int:
        return self.steps

    def solve(
        self, y: Tensor, operator: Operator, prior: Density, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        exact = noise_std == 0
        any_exact = bool(exact.any())
        weight = prior.map_weight if self.weight is None else self.weight
        step_size = prior.map_step_size if self.step_size is None else self.step_size
        factor = weight * noise_std.clamp(min=NOISE_FLOOR) ** 2  # of the log-density

        def loss(x: Tensor) -> Tensor:
            fit = squared_misfit(x, y, operator) / 2
            if self.optimiser == "adam":  # noise-free data are fitted by projection
                fit = torch.where(exact, 0, fit)
            return fit - factor * prior.log_prob(x)

        def project(x: Tensor) -> Tensor:
            if not any_exact:
                return x
            return torch.where(per_image(exact, x) > 0, operator.prox(x, y, 0), x)

        with torch.no_grad():
            smoothing = (noise_std / SMOOTH_START_NOISE).clamp(min=1)
            x = smooth_start(y, operator, weight=(WEIGHT * smoothing**6).clamp(max=1))
            if self.optimiser == "lbfgs":
                return minimise(loss, x, self.steps, unit=factor)
            step_scale = per_image((noise_std / LONG_STEP_NOISE).clamp(min=1), x)
            return step_scale * adam(
                with_gradient(lambda u: loss(step_scale * u), factor),
                project(x) / step_scale,
                self.steps,
                step_size,
                falling=True,
                project=lambda u: project(step_scale * u) / step_scale,
                betas=BETAS,
            )
