"""Noise levels of latents, and the mapping between states of variance-preserving diffusion.

A state z_t = sqrt(a) z + sqrt(1 - a) n is sqrt(a) times the state z + s n, a = 1 / (1 + s^2).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from genprior.core.schedules import sigma_steps
from genprior.operators.base import Operator
from genprior.priors.base import LatentDenoiser


def ddpm_levels(steps: int) -> list[float]:
    """Returns the noise levels of DDPM in units of latents, decreasing."""
    return [2 * sigma for sigma in sigma_steps(steps, 1.0, 1.0, "ddpm")]


def signal(s: float) -> float:
    """Returns a = 1 / (1 + s^2), the share of the signal in the variance."""
    return 1 / (1 + s**2)


def latents_like(y: Tensor, operator: Operator, prior: LatentDenoiser) -> Tensor:
    """Returns zeros of the shape of the latents of the images measured in y, without memory."""
    return y.new_zeros(()).expand(prior.latent_shape(operator.image_shape(y.shape)))


def norms(residual: Tensor) -> Tensor:
    """Returns the norm of every entry of a batch; its gradient is 0 where the norm is."""
    return residual.flatten(1).square().sum(dim=1).clamp(min=1e-24).sqrt()


def gradient(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the gradient of an objective per image, and another result of its function.

    Arguments:
        objective: Maps z (B, ...) to values (B,) and a tensor, such as an estimate.
        z: Point, shape (B, ...).
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        values, other = objective(z)
        return torch.autograd.grad(values.sum(), z)[0], other.detach()
