"""Metropolis-adjusted Langevin algorithm (MALA): samples from exp(-U), one chain per image.

    z' = z - h grad U(z) + sqrt(2 h) n,   accepted with probability min(1, a),
    log a = U(z) - U(z') + log q(z | z') - log q(z' | z),   q(. | z) = N(z - h grad U(z), 2 h I)

During the first half of the steps (burn-in) every chain adapts its own h to an acceptance rate
of 57 %.

References:
    Exponential Convergence of Langevin Distributions and Their Discrete Approximations, Roberts
        and Tweedie, 1996.
    Optimal Scaling of Discrete Approximations to Langevin Diffusions, Roberts and Rosenthal, 1998.
"""

import torch
from torch import Tensor

from genprior.core.linalg import inner
from genprior.core.random_streams import Noise
from genprior.inverse.optimization.lbfgs import Objective

ACCEPTANCE = 0.574
SLOWEST = 0.6


def mala(objective: Objective, z: Tensor, steps: int, h: Tensor, generator: Noise) -> Tensor:
    """Returns the last state of each chain.

    Arguments:
        objective: Maps z to U (B,) and its gradient (B, ...); entry i depends on z[i] alone.
        z: Initial states, shape (B, ...).
        steps: Evaluations of the objective, >= 1.
        h: Initial step sizes, shape (B,), > 0.
        generator: Random streams, one per chain.
    """
    U, g = objective(z)
    shape = inner(z, z).shape
    U, log_h = U.reshape(shape), h.log().reshape(shape)
    for k in range(1, steps):
        h = log_h.exp()
        n = generator.normal(z)
        z_try = z - h * g + (2 * h).sqrt() * n
        U_try, g_try = objective(z_try)
        U_try = U_try.reshape(shape)
        back = (z - z_try + h * g_try) / (2 * h).sqrt()
        log_a = U - U_try + (inner(n, n) - inner(back, back)) / 2
        log_a = torch.where(log_a.isfinite(), log_a, -torch.inf)
        u = torch.special.ndtr(generator.normal(U))
        accepted = u.log() < log_a
        z, g = torch.where(accepted, z_try, z), torch.where(accepted, g_try, g)
        U = torch.where(accepted, U_try, U)
        if k < steps // 2:
            log_h = log_h + (log_a.exp().clamp(max=1) - ACCEPTANCE) / k**SLOWEST
    return z
