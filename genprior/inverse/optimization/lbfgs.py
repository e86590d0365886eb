"""Batched limited-memory BFGS (L-BFGS), with a separate Hessian and step size per image.

    z <- z - t H g,   H from the last pairs s = z_next - z, d = g_next - g (two-loop recursion)

A step is one evaluation, at the trial point z + t p with p = -H g; t starts at 1. It is accepted,
separately for each image, under the strong Wolfe conditions

    f(z + t p) <= f(z) + c1 t <g, p>   and   |<g(z + t p), p>| <= c2 |<g, p>|

Otherwise the next t bisects the bracket that contains such a t. There is no host
synchronisation.

References:
    Updating Quasi-Newton Matrices with Limited Storage, Nocedal, 1980.
    Convergence Conditions for Ascent Methods, Wolfe, 1969.
    On the Global Convergence of the BFGS Method for Nonconvex Unconstrained Optimization
        Problems, Li and Fukushima, 2001 (pairs without positive curvature are skipped).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from genprior.core.linalg import inner

MEMORY = 10
SUFFICIENT = 1e-4
FLAT = 0.9
PATIENCE = 8  # trials, after which sufficient decrease alone is accepted
CURVATURE = 1e-8

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


def lbfgs(objective: Objective, z: Tensor, steps: int) -> Tensor:
    """Minimises one loss per image.

    Arguments:
        objective: Maps z to losses (B,) and their gradients (B, ...); image i of both must
            depend on z[i] alone.
        z: First iterate, shape (B, ...).
        steps: Evaluations of the objective, >= 1.

    Returns:
        The best iterates, shape (B, ...). A loss never increases by more than its rounding error.
    """
    value, g = objective(z)
    value = value.reshape(inner(z, z).shape)
    rounding = 2 * torch.finfo(z.dtype).eps
    s, d = z.new_zeros((2, MEMORY, *z.shape)).unbind()
    initial = torch.ones_like(value), torch.zeros_like(value), torch.full_like(value, torch.inf)
    (t, low, high), trials = initial, torch.zeros_like(value)
    for _ in range(steps - 1):
        p = -_inverse_hessian(g, s, d)
        z_try = z + t * p
        value_try, g_try = objective(z_try)
        value_try = value_try.reshape(value.shape)
        slope, slope_try = inner(g, p), inner(g_try, p)
        enough = value_try <= value + SUFFICIENT * t * slope + rounding * value.abs()
        flat = slope_try.abs() <= FLAT * slope.abs()
        # near a minimum, rounding errors of the slope can keep it from ever being flat
        accepted = enough & (flat | (trials >= PATIENCE))

        s_new, d_new = z_try - z, g_try - g
        convex = inner(s_new, d_new) > CURVATURE * inner(s_new, s_new)
        s, d = (
            torch.where(accepted & convex, torch.cat([pairs[1:], new[None]]), pairs)
            for pairs, new in ((s, s_new), (d, d_new))
        )
        z, g = torch.where(accepted, z_try, z), torch.where(accepted, g_try, g)
        value = torch.where(accepted, value_try, value)

        too_short = enough & (slope_try < 0)
        low, high = torch.where(too_short, t, low), torch.where(too_short, high, t)
        t = torch.where(high.isfinite(), (low + high) / 2, 2 * t)
        trials = torch.where(accepted, 0, trials + 1)
        state = zip(initial, (t, low, high), strict=True)
        t, low, high = (torch.where(accepted, new, old) for new, old in state)
    return z


def _inverse_hessian(g: Tensor, s: Tensor, d: Tensor) -> Tensor:
    """Returns H g. Pairs (MEMORY, B, ...) are ordered oldest first; empty ones are 0."""
    curvature = [inner(a, b) for a, b in zip(s, d, strict=True)]
    rho = [torch.where(c > 0, 1 / torch.where(c > 0, c, 1), 0) for c in curvature]
    q, alphas = g, []
    for k in reversed(range(len(s))):
        alpha = rho[k] * inner(s[k], q)
        q = q - alpha * d[k]
        alphas.insert(0, alpha)
    # without pairs the scale is unknown: the first step has length 1 at most
    length = inner(g, g).sqrt().clamp(min=1)
    q = q * torch.where(curvature[-1] > 0, curvature[-1] / inner(d[-1], d[-1]), 1 / length)
    for k in range(len(s)):
        beta = rho[k] * inner(d[k], q)
        q = q + (alphas[k] - beta) * s[k]
    return q
