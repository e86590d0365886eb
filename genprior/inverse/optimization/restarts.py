"""Latent optimisation from random starts: the search of CSGM and the first stage of others.

    z = argmin_z ||A G(z) - y||^2 + lambda ||z||^2

The starts of all images are one batch.
"""

from typing import Protocol

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.optimization.objective import Optimiser, minimise, squared_misfit
from genprior.operators.base import Operator
from genprior.priors.base import Decoder


class Search(Protocol):
    """Settings of a latent search; see `CSGM`."""

    steps: int
    step_size: float
    restarts: int
    penalty: float | None
    optimiser: Optimiser


def search_latents(
    y: Tensor,
    operator: Operator,
    prior: Decoder,
    noise_std: Tensor,
    generator: Noise,
    settings: Search,
    target: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the best latent of every image, shape (B, ...), and its decoded image (B, C, H, W).

    Arguments:
        y, operator, prior, noise_std, generator: See `Solver.solve`.
        settings: Settings of the search.
        target: Images (B, C, H, W) that are fitted in place of the measurements.
    """
    batch, *image = operator.image_shape(y.shape)
    latent = prior.latent_shape(torch.Size((batch, *image)))[1:]
    shape = torch.Size((settings.restarts * batch, *image))
    penalty = penalties(settings.penalty, noise_std).repeat(settings.restarts)

    def misfit(x: Tensor) -> Tensor:
        if target is None:
            return squared_misfit(x, y, operator)
        return (x.unflatten(0, (-1, batch)) - target).flatten(0, 1).flatten(1).square().sum(dim=1)

    def loss(z: Tensor) -> Tensor:
        fit = misfit(prior.decode(z, shape))
        return fit + penalty * z.flatten(1).square().sum(dim=1)

    z = generator.normal(y.new_empty(()).expand(batch, settings.restarts, *latent))
    z = z.transpose(0, 1).flatten(0, 1)
    z = minimise(loss, z, settings.steps, settings.optimiser, settings.step_size)
    x = prior.decode(z, shape)
    fit = misfit(x).nan_to_num(nan=torch.inf)
    best = fit.reshape(settings.restarts, batch).argmin(dim=0)
    return tuple(_pick(v.unflatten(0, (settings.restarts, batch)), best) for v in (z, x))


def penalties(given: float | None, noise_std: Tensor) -> Tensor:
    """Returns lambda of every image: the given one, or the noise variance if it is None."""
    return noise_std**2 if given is None else torch.full_like(noise_std, given)


def _pick(values: Tensor, best: Tensor) -> Tensor:
    return values.take_along_dim(best.reshape(1, len(best), *[1] * (values.ndim - 2)), dim=0)[0]
