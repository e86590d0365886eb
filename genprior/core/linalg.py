"""Matrix-free linear solves, batched: the images of a batch never influence each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RESTARTS = 3
WORST_RESIDUAL = 1e-3


@dataclass(frozen=True)
class Singular:
    """A = U diag(s) V^T, in coordinates that may be complex and fewer than the pixels.

    Arguments:
        values: s >= 0, broadcastable to the coordinates (B, C, ...).
        image: V^T x.
        back: V c, real; what V does not reach is 0.
        data: U^T y.
    """

    values: Tensor
    image: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    data: Callable[[Tensor], Tensor]


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per image, shape (B, 1, ..., 1) so that it multiplies a."""
    return (a * b).flatten(1).sum(dim=1).reshape(-1, *[1] * (a.ndim - 1))


def per_image(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, or one per image, as a tensor (B, 1, ..., 1) that multiplies `like` (B, ...).

    Raises:
        ValueError: A tensor has neither one element nor one per image.
    """
    count, ones = len(like), [1] * (like.ndim - 1)
    if not isinstance(value, Tensor):  # not copied to the device, which would stop the host
        return like.new_full((count, *ones), value)
    if value.numel() not in (1, count):
        raise ValueError(
            f"a per-image value must be a number or hold one number for each of the {count} "
            f"images, got {value.numel()} numbers"
        )
    return value.to(like).reshape(-1).expand(count).reshape(-1, *ones)


def damped_inverse(
    power: Tensor, shift: Tensor, axes: Sequence[int] = (-2, -1)
) -> Tensor:
    """1 / (power + shift) of a spectrum, 0 where that sum is nothing but rounding errors.

    At shift = 0 it is the pseudo-inverse. Sums below eps^1.5 of the largest power of an image
    count as 0, that is singular values below eps^0.75 of the largest one.

    Arguments:
        power: Squared singular values >= 0.
        shift: Damping >= 0; it broadcasts with `power`.
        axes: Those of an image, or of a channel of one.
    """
    total = power + shift
    floor = torch.finfo(power.dtype).eps ** 1.5 * power.amax(tuple(axes), keepdim=True)
    return torch.where(total > floor, 1 / torch.where(total > floor, total, 1), 0)


def split_along(r: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """<u, r> and r - <u, r> u for vectors u along axis 1, of length 1 or 0.

    The rest is exact to its own rounding errors, be it ever so small beside r.
    """
    along = (u.conj() * r).sum(dim=1, keepdim=True)
    rest = r - along * u
    rest = rest - (u.conj() * rest).sum(dim=1, keepdim=True) * u
    return along[:, 0], rest


def fast_size(n: int) -> int:
    """Smallest integer >= n without prime factors above 7: its FFT is several times faster.

    >>> fast_size(2047), fast_size(121)
    (2048, 125)
    """
    m = n
    for prime in (2, 3, 5, 7):
        while m % prime == 0:
            m //= prime
    return n if m == 1 else fast_size(n + 1)


def fast_shape(shape: Sequence[int]) -> tuple[int, int]:
    """`fast_size` of height and width, the last two numbers of a shape."""
    return fast_size(shape[-2]), fast_size(shape[-1])


def cg(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    start: Tensor | None = None,
    iterations: int = 50,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 0.0,
    flat: float = 0.0,
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
        flat: Directions whose curvature <p, M p> / <p, p> is this fraction of the largest, or
            less, are left out: rounding errors where M is singular.

    Returns:
        Solutions, shape (B, ...).

    References:
        Methods of Conjugate Gradients for Solving Linear Systems, Hestenes and Stiefel, 1952.
    """

    def carry(p: Tensor) -> tuple[Tensor, Tensor]:
        return matrix(p), p

    r = b if start is None else b - matrix(start)
    step = cg_image(carry, b, r, iterations, preconditioner, tolerance, flat=flat)
    return step if start is None else start + step


def cg_image(
    matrix: Callable[[Tensor], tuple[Tensor, Tensor]],
    b: Tensor,
    r: Tensor,
    iterations: int,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 0.0,
    least: Tensor | float = 0.0,
    flat: float = 0.0,
) -> Tensor:
    """L M^{-1} r by conjugate gradient, where M p and L p are had together.

    For M = A C A^T and L = C A^T, where a product with C is what costs: L need not be applied
    once more to the solution.

    Arguments:
        matrix: Maps p, shape (B, ...), to (M p, L p).
        b: What the residual is compared with, shape (B, ...).
        r: Right-hand sides, shape (B, ...).
        iterations, preconditioner, tolerance, flat: As for `cg`.
        least: What the eigenvalues of M cannot be below, should it not be quite symmetric; a
            number or shape (B, 1, ..., 1). Smaller curvatures count as this, negative ones
            not at all.

    Returns:
        Of the shape of L p.
    """
    precondition = preconditioner or (lambda r: r)
    image: Tensor | float = 0.0
    z = precondition(r)
    p, rz = z, inner(r, z)
    floor = max(tolerance, torch.finfo(b.dtype).eps) ** 2 * inner(b, b)
    steepest = torch.zeros_like(floor)
    for iteration in range(iterations):
        # a preconditioner that is singular leaves nothing at the end of what it does not reach
        active = (inner(r, r) > floor) & (rz > 0)
        if tolerance and iteration % 10 == 0 and not active.any():
            break
        q, u = matrix(p)
        curvature, length2 = inner(p, q), inner(p, p)
        steepest = torch.maximum(steepest, curvature / torch.where(length2 > 0, length2, 1))
        bounded = torch.maximum(curvature, least * length2)
        # A direction of negative curvature is left out: a step along it, how long however, would
        # lead away, and far, where the bound is small beside what M makes of it.
        useful = active & (curvature > flat * steepest * length2)
        step = torch.where(useful, rz / torch.where(useful, bounded, 1), 0)
        image = image + step.reshape(-1, *[1] * (u.ndim - 1)) * u
        r = r - step * q
        z = precondition(r)
        rz_next = inner(r, z)
        p = z + torch.where(active, rz_next / torch.where(active, rz, 1), 0) * p
        rz = rz_next
    return image if isinstance(image, Tensor) else torch.zeros_like(b)


def gcr_image(
    matrix: Callable[[Tensor], tuple[Tensor, Tensor]],
    r: Tensor,
    iterations: int,
    preconditioner: Callable[[Tensor], Tensor],
) -> Tensor:
    """L M^{-1} r by generalised conjugate residuals, where M p and L p are had together.

    The residual falls in every iteration, whatever M: it may be indefinite and not symmetric,
    where `cg_image` would take steps of any length. Nothing is read back to the host.

    Arguments:
        matrix: Maps p, shape (B, ...), to (M p, L p).
        r: Right-hand sides, shape (B, ...).
        iterations: One product with M each; all directions are kept.
        preconditioner: Applies an approximate inverse.

    Returns:
        Of the shape of L p.

    References:
        Variational Iterative Methods for Nonsymmetric Systems of Linear Equations, Eisenstat
        et al., 1983.
    """
    eps = torch.finfo(r.dtype).eps
    floor = eps**2 * inner(r, r)
    image: Tensor | float = 0.0
    earlier: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(iterations):
        q, u = matrix(preconditioner(r))
        size = inner(q, q)
        for q_other, u_other, size_other in earlier:
            share = inner(q, q_other) / size_other
            q, u = q - share * q_other, u - per_image(share, u) * u_other
        left = inner(q, q)
        # What earlier directions leave of a repeated one is rounding, and so is a tiny residual.
        useful = (left > eps * size) & (inner(r, r) > floor)
        step = torch.where(useful, inner(r, q) / torch.where(useful, left, 1), 0)
        image = image + per_image(step, u) * u
        r = r - step * q
        earlier.append((q, u, torch.where(useful, left, torch.inf)))  # useless: no share in later
    return image if isinstance(image, Tensor) else torch.zeros_like(r)


def solve(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    iterations: int,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 1e-6,
) -> Tensor:
    """`cg`, judged by the residual that its answer has and not by the one that it carries along.

    Rounding errors part the two. While the true one is above the tolerance, the iteration
    starts again from where it is, with the true one; a start that makes it worse, as may
    happen if the matrix is singular, is forgotten.

    Arguments:
        matrix, b, preconditioner, tolerance: As for `cg`.
        iterations: Largest number of iterations of a start; there are at most 3.

    Raises:
        ArithmeticError: A relative residual is above 1e-3. Between that and the tolerance the
            answer is returned as it is.
    """
    x, b2 = torch.zeros_like(b), inner(b, b)
    residual2 = (b2 > 0).to(b)
    for _ in range(RESTARTS):
        start = cg(matrix, b, x, iterations, preconditioner, tolerance)
        r = b - matrix(start)
        start2 = inner(r, r) / torch.where(b2 > 0, b2, 1)
        x = torch.where(start2 < residual2, start, x)
        residual2 = torch.minimum(start2, residual2)
        if (residual2 <= tolerance**2).all():
            break
    demand_solved(residual2, f"after {RESTARTS} x {iterations} iterations", tolerance)
    return x


def demand_solved(residual2: Tensor, when: str, tolerance: float) -> None:
    """Refuses relative residuals above 1e-3; arguments are their squares and words for the error.

    Raises:
        ArithmeticError: One is.
    """
    if (residual2 > WORST_RESIDUAL**2).any():
        raise ArithmeticError(
            f"a linear system is not solved: its relative residual is "
            f"{residual2.max().sqrt():.1e} {when}, and should be {tolerance:.0e}: allow more "
            f"iterations, or give the prior a floor or the measurement a noise level, or larger "
            f"ones"
        )
