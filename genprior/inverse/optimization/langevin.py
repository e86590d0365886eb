"""Langevin sampling of the posterior, over the latents of a decoder or over the image.

    latent   U(z) = ||A G(z) - y||^2 / (2 sigma^2) + ||z||^2 / 2,   x = G(z)
    image    U(x) = ||A x - y||^2 / (2 sigma^2) - log p(x)

For a flow both give the same distribution of the image, for image sizes that the flow takes
without padding; over latents the problem is better conditioned. Markov chains start at the mode
found by L-BFGS and are Metropolis-adjusted: the only remaining error is their finite length.

References:
    See `mala`; Composing Normalizing Flows for Inverse Problems, Whang, Lindgren and Dimakis,
    2021 (sampling the posterior of a flow).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.inverse.optimization.mala import mala
from genprior.inverse.optimization.objective import minimise, squared_misfit, with_gradient
from genprior.inverse.tikhonov import smooth_start
from genprior.operators.base import Operator
from genprior.priors.base import Decoder, Density

NOISE_FLOOR = 0.001


@dataclass(frozen=True)
class Langevin(Solver):
    """Metropolis-adjusted Langevin chains over the latents of a decoder.

    Arguments:
        steps: Evaluations of the decoder and its gradient, including the mode search, >= 2.
        search: Share of the steps for the mode search by L-BFGS from z = 0, in [0, 1).
        step_size: Initial step size h, > 0; it is adapted.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Decoder
    stochastic = True
    uses = "gradient"
    summary = "samples, Markov chain over latents; 1 forward + 1 backward per step"

    steps: int = setting(500, ge=1)
    search: float = 0.2
    step_size: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_settings(self.steps, self.search, self.step_size)

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
        variance = noise_std.clamp(min=NOISE_FLOOR) ** 2

        def energy(z: Tensor) -> Tensor:
            fit = squared_misfit(prior.decode(z, shape), y, operator) / variance
            return (fit + z.flatten(1).square().sum(dim=1)) / 2

        with torch.no_grad():
            z = y.new_zeros(prior.latent_shape(shape))
            z = _run_chain(energy, z, self, generator, unit=1 / variance)
            return prior.decode(z, shape)


@dataclass(frozen=True)
class ImageLangevin(Solver):
    """Metropolis-adjusted Langevin chains over the image, for any density.

    Arguments:
        steps: Evaluations of the log-density and its gradient, including the mode search, >= 2.
        search: Share of the steps for the mode search by L-BFGS from the Tikhonov solution, in
            [0, 1).
        step_size: Initial step size h, > 0; it is adapted.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Density
    stochastic = True
    uses = "gradient"
    summary = "samples, Markov chain over the image; 1 forward + 1 backward per step"

    steps: int = setting(500, ge=1)
    search: float = 0.2
    step_size: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_settings(self.steps, self.search, self.step_size)

    @property
    def nfe(self) -> int:
        return self.steps

    @property
    def jacobian_products(self) -> int:
        return self.steps

    def solve(
        self, y: Tensor, operator: Operator, prior: Density, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        variance = noise_std.clamp(min=NOISE_FLOOR) ** 2

        def energy(x: Tensor) -> Tensor:
            return squared_misfit(x, y, operator) / (2 * variance) - prior.log_prob(x)

        with torch.no_grad():
            return _run_chain(energy, smooth_start(y, operator), self, generator)


def _run_chain(
    energy: Callable[[Tensor], Tensor],
    z: Tensor,
    settings: Langevin | ImageLangevin,
    generator: Noise,
    unit: float | Tensor = 1.0,
) -> Tensor:
    search = int(settings.search * settings.steps)
    if search:
        z = minimise(energy, z, search, unit=unit)
    h = torch.full((len(z),), settings.step_size, dtype=z.dtype, device=z.device)
    return mala(with_gradient(energy, unit), z, settings.steps - search, h, generator)


def _check_settings(steps: int, search: float, step_size: float) -> None:
    if steps < 2 or not 0 <= search < 1:
        raise ValueError(
            f"steps must be at least 2 and search in [0, 1), got {steps} and {search}"
        )
    if not 0 < step_size < float("inf"):
        raise ValueError(f"step_size must be > 0 and finite, got {step_size}")
