"""What the solvers that search by descent share: losses of batches, their gradients, Adam."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.inverse.optimization.lbfgs import Objective, lbfgs
from genprior.operators.base import Operator

Optimiser = Literal["adam", "lbfgs"]


def squared_misfit(x: Tensor, y: Tensor, operator: Operator) -> Tensor:
    """||A x - y||^2 per image, shape (K B,).

    Arguments:
        x: K images for each measurement, shape (K B, C, H, W); image k of measurement i is
            number k B + i.
        y: Measurements, shape (B, ...).
        operator: How they were made.
    """
    # one after the other, since an operator may hold something for each image of y
    fits = [operator.A(x_k) - y for x_k in x.split(len(y))]
    return torch.cat(fits).flatten(1).square().sum(dim=1)


def with_gradient(
    loss: Callable[[Tensor], Tensor], unit: float | Tensor = 1.0
) -> Objective:
    """A loss per image, shape (B,), as a function that returns its gradient too.

    Arguments:
        loss: Maps z to the losses.
        unit: What a loss is of the order of, where that is far from one; a number or (B,). It is
            differentiated in the next power of two, which rounds nothing: float16 would lose, or
            make infinite, what is passed back through a network.
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
    """Descends on one loss per image.

    Arguments:
        loss: Maps z to losses (B,), each of z[i] alone.
        z: First iterate, shape (B, ...).
        steps: Evaluations, >= 1.
        optimiser: "lbfgs" or "adam".
        step_size: Learning rate of Adam.
        unit: See `with_gradient`.

    Returns:
        The best iterate of each image; of Adam, whose last ones may leave a minimum again.
    """
    objective = with_gradient(loss, unit)
    if optimiser == "lbfgs":
        return lbfgs(objective, z, steps)
    least, best = z.new_full((len(z),), torch.inf), z

    def watched(z: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal least, best
        value, gradient = objective(z)
        better = ~(value >= least)  # one that is not a number is to be seen
        best = torch.where(better.reshape(-1, *[1] * (z.ndim - 1)), z, best)
        least = torch.where(better, value, least)
        return value, gradient

    adam(watched, z, steps, step_size)
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
    """The last iterate of Adam; arguments as those of `lbfgs`, and more.

    Arguments:
        step_size: Learning rate.
        falling: It falls to 0 in a straight line.
        project: What is done to the iterate after each step.
        betas: Memory of the gradient and of its square.

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


def check_search(penalty: float | None, optimiser: str, step_size: float) -> None:
    """Refuses settings of a search that are out of their range.

    Raises:
        ValueError: The message says which and why.
    """
    if not 0 < step_size < float("inf"):
        raise ValueError(f"step_size must be > 0 and finite, got {step_size}")
    if penalty is not None and not 0 <= penalty < float("inf"):
        raise ValueError(
            f"penalty must be >= 0 and finite, or None for the square of the noise level, "
            f"got {penalty}"
        )
    if optimiser not in ("adam", "lbfgs"):
        raise ValueError(f"optimiser must be 'adam' or 'lbfgs', got {optimiser!r}")
