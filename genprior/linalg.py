"""Matrix-free linear solves, batched: the images of a batch never influence each other."""

from collections.abc import Callable

import torch
from torch import Tensor


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per image, shape (B, 1, ..., 1) so that it multiplies a."""
    return (a * b).flatten(1).sum(dim=1).reshape(-1, *[1] * (a.ndim - 1))


def per_image(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, or one per image, as a tensor (1 or B, 1, ..., 1) that multiplies `like`."""
    shape = [-1] + [1] * (like.ndim - 1)
    if isinstance(value, Tensor):
        return value.to(like).reshape(shape)
    return torch.full([1] * like.ndim, value, dtype=like.dtype, device=like.device)


def damped_inverse(power: Tensor, shift: Tensor) -> Tensor:
    """1 / (power + shift) of a spectrum, 0 where that sum is nothing but rounding errors.

    At shift = 0 it is the pseudo-inverse. Sums below eps^1.5 of the largest power of an image
    count as 0, that is singular values below eps^0.75 of the largest one.

    Arguments:
        power: Squared singular values >= 0 on the last two axes.
        shift: Damping >= 0; it broadcasts with `power`.
    """
    total = power + shift
    floor = torch.finfo(power.dtype).eps ** 1.5 * power.amax((-2, -1), keepdim=True)
    return torch.where(total > floor, 1 / torch.where(total > floor, total, 1), 0)


def cg(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    start: Tensor | None = None,
    iterations: int = 50,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 0.0,
) -> Tensor:
    """Preconditioned conjugate gradient for symmetric positive (semi-)definite systems.

    Every image has its own step sizes; one that has converged stops changing, so its result
    does not depend on the rest of the batch. Nothing is read back to the host unless
    `tolerance` is set (then every 10 iterations).

    Arguments:
        matrix: Applies the matrix to a batch (B, ...).
        b: Right-hand sides, shape (B, ...).
        start: First iterate, or None for 0.
        iterations: Largest number of iterations.
        preconditioner: Applies an approximate inverse, symmetric positive definite.
        tolerance: An image has converged when ||b - M x|| <= tolerance ||b||.

    Returns:
        Solutions, shape (B, ...).

    References:
        Methods of Conjugate Gradients for Solving Linear Systems, Hestenes and Stiefel, 1952.
    """
    precondition = preconditioner or (lambda r: r)
    x = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - matrix(x)
    z = precondition(r)
    p, rz = z, inner(r, z)
    floor = max(tolerance, torch.finfo(b.dtype).eps) ** 2 * inner(b, b)
    for iteration in range(iterations):
        active = inner(r, r) > floor
        if tolerance and iteration % 10 == 0 and not active.any():
            break
        q = matrix(p)
        curvature = torch.where(active, inner(p, q), 1)
        step = torch.where(active & (curvature > 0), rz / curvature, 0)
        x = x + step * p
        r = r - step * q
        z = precondition(r)
        rz_next = inner(r, z)
        p = z + torch.where(active, rz_next / torch.where(active, rz, 1), 0) * p
        rz = rz_next
    return x
