"""Batched losses, their gradients, and optimisers for solvers that minimise an objective."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.inverse.optimization.lbfgs import Objective, lbfgs
from genprior.operators.base import Operator

Optimiser = Literal["adam", "lbfgs"]


def squared_misfit(x: Tensor, y: Tensor, operator: Operator) -> Tensor:
    """Returns ||A x - y||^2 per image, shape (K B,).

    Arguments:
        x: K images for each measurement, shape (K B, C, H, W); image k of measurement i has
            index k B + i.
        y: Measurements, shape (B, ...).
        operator: The operator A.
    """
    # K separate calls, since an operator may hold data for each image of y
    fits = [operator.A(x_k) - y for x_k in x.split(len(y))]
    return torch.cat(fits).flatten(1).square().sum(dim=1)


def with_gradient(
    loss: Callable[[Tensor], Tensor], unit: float | Tensor = 1.0
) -> Objective:
    """Returns a function that evaluates a loss per image, shape (B,), and its gradient.

    Arguments:
        loss: Maps z to the losses (B,).
        unit: Order of magnitude of the loss, a number or shape (B,). The loss is divided by the
            nearest power of two, which is free of rounding, before it is differentiated:
            otherwise the gradients in a float16 network could underflow or overflow.
    """

    def objective(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = loss(z)
            order = torch.as_tensor(unit).to(value).log2().round().exp2()
            gradient = torch.autograd.grad((value / order).sum(), z)[0]
        return value.detach(), per_image(order, z) * gradient

    return objective


def minimise(
    loss: Callable[[Tensor], Tensor],
    z: Tensor,
    steps: int,
    optimiser: Optimiser = "lbfgs",
    step_size: float = 0.1,
    unit: float | Tensor = 1.0,
) -> Tensor:
    """Minimises one loss per image.

    Arguments:
        loss: Maps z to losses (B,); loss i depends on z[i] alone.
        z: First iterate, shape (B, ...).
        steps: Evaluations of the loss and its gradient, >= 1.
        optimiser: "lbfgs" or "adam".
        step_size: Learning rate of Adam.
        unit: See `with_gradient`.

    Returns:
        The best iterate of each image. (The last iterates of Adam may have left a minimum.)
    """
    objective = with_gradient(loss, unit)
    if optimiser == "lbfgs":
        return lbfgs(objective, z, steps)
    least, best = z.new_full((len(z),), torch.inf), z

    def tracked(z: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal least, best
        value, gradient = objective(z)
        better = ~(value >= least)  # also true for NaN, so that NaN is not hidden
        best = torch.where(better.reshape(-1, *[1] * (z.ndim - 1)), z, best)
        least = torch.where(better, value, least)
        return value, gradient

    adam(tracked, z, steps, step_size)
    return best


def adam(
    objective: Objective,
    z: Tensor,
    steps: int,
    step_size: float,
    falling: bool = False,
    project: Callable[[Tensor], Tensor] | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Tensor:
    """Returns the last iterate of Adam; for the first three arguments see `lbfgs`.

    Arguments:
        step_size: Learning rate.
        falling: Whether the learning rate decays linearly to 0.
        project: Projection that is applied to the iterate after each step.
        betas: Decay rates of the moving averages of the gradient and of its square.

    References:
        Adam: A Method for Stochastic Optimization, Kingma and Ba, 2015.
    """
    z = z.clone()
    optimiser = torch.optim.Adam([z], lr=step_size, betas=betas)
    for k in range(steps):
        optimiser.param_groups[0]["lr"] = step_size * (1 - k / steps if falling else 1)
        z.grad = objective(z)[1]
        optimiser.step()
        if project is not None:
            z.copy_(project(z))
    return z


def check_search(penalty: float | None, optimiser: str, step_size: float | None) -> None:
    """Raises an error for settings of a minimisation that are out of their range.

    Raises:
        ValueError: A setting is out of its range.
    """
    if step_size is not None and not 0 < step_size < float("inf"):
        raise ValueError(f"step_size must be > 0 and finite, got {step_size}")
    if penalty is not None and not 0 <= penalty < float("inf"):
        raise ValueError(
            f"penalty must be >= 0 and finite, or None for the square of the noise level, "
            f"got {penalty}"
        )
    if optimiser not in ("adam", "lbfgs"):
        raise ValueError(f"optimiser must be 'adam' or 'lbfgs', got {optimiser!r}")
