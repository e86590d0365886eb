"""Matrix-free linear solves, batched: the images of a batch never influence each other."""

from collections.abc import Callable

import torch
from torch import Tensor


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per image, shape (B, 1, ..., 1) so that it multiplies a."""
    return (a * b).flatten(1).sum(dim=1).reshape(-1, *[1] * (a.ndim - 1))


def cg(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    start: Tensor | None = None,
    iterations: int = 50,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 0.0,
) -> Tensor:
    """Preconditioned conjugate gradient for symmetric positive (semi-)definite systems.

    Every image has its own step sizes; one that has converged stops changing. Nothing is
    read back to the host unless `tolerance` is set (then every 10 iterations).

    Arguments:
        matrix: Applies the matrix to a batch (B, ...).
        b: Right-hand sides, shape (B, ...).
        start: First iterate, or None for 0.
        iterations: Largest number of iterations.
        preconditioner: Applies an approximate inverse, symmetric positive definite.
        tolerance: Stop when ||b - M x|| <= tolerance ||b|| for every image; 0 never stops.

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
    floor = torch.finfo(b.dtype).eps ** 2 * inner(b, b)
    for iteration in range(iterations):
        if tolerance and iteration % 10 == 0:
            if (inner(r, r) <= tolerance**2 * inner(b, b)).all():
                break
        q = matrix(p)
        active = inner(r, r) > floor
        curvature = torch.where(active, inner(p, q), 1)
        step = torch.where(active & (curvature > 0), rz / curvature, 0)
        x = x + step * p
        r = r - step * q
        z = precondition(r)
        rz_next = inner(r, z)
        p = z + torch.where(active, rz_next / torch.where(active, rz, 1), 0) * p
        rz = rz_next
    return x
