"""Diffusion steps in the notation of the papers, independent of the package.

Images u = 2 x - 1 in [-1, 1], states u_t = sqrt(a) u + sqrt(1 - a) n with a = alpha-bar.
"""

import numpy as np
from torch import Tensor

from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


def alpha_bars(steps: int) -> list[float]:
    """Returns alpha-bar at each evaluation, increasing, then 1 for the image."""
    a = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    times = np.unique(np.round(np.linspace(0, 999, steps)).astype(int))[::-1]
    return [*a[times].tolist(), 1.0]


def predict(prior: Denoiser, u_t: Tensor, a: float) -> Tensor:
    """Returns E[u | u_t]."""
    noise_std = ((1 - a) / a) ** 0.5
    return 2 * prior.denoise((u_t / a**0.5 + 1) / 2, noise_std / 2) - 1


def measurement(y: Tensor, operator: Operator, like: Tensor) -> Tensor:
    """Converts the measurement y of x to one of u, with doubled noise."""
    return 2 * y - operator.A(like.new_ones(like.shape))


def ddim(u_t: Tensor, u_hat: Tensor, z: Tensor, a: float, a_next: float, eta: float) -> Tensor:
    """Computes the step of Song et al. (2021), equation 12 with sigma_t of equation 16."""
    added = eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)) ** 0.5
    e = (u_t - a**0.5 * u_hat) / (1 - a) ** 0.5
    return a_next**0.5 * u_hat + max(1 - a_next - added**2, 0) ** 0.5 * e + added * z


def ddpm(u_t: Tensor, u_hat: Tensor, z: Tensor, a: float, a_next: float) -> Tensor:
    """Draws from the posterior q(u_s | u_t, u_0 = u_hat) of Ho et al. (2020), equation 7."""
    alpha = a / a_next
    beta = 1 - alpha
    mean = a_next**0.5 * beta / (1 - a) * u_hat + alpha**0.5 * (1 - a_next) / (1 - a) * u_t
    return mean + ((1 - a_next) / (1 - a) * beta) ** 0.5 * z
