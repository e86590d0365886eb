"""Matrix-free linear solvers (CG, GCR), batched with every image independent of the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

RESTARTS = 3
WORST_RESIDUAL = 1e-3


@dataclass(frozen=True)
class Singular:
    """Singular value decomposition A = U diag(s) V^T of an operator, as functions.

    Its coordinates may be complex, and fewer than the pixels.

    Arguments:
        values: s >= 0, broadcastable to the coordinates (B, C, ...).
        image: V^T x.
        back: V c, real; 0 in the null space of V^T.
        data: U^T y.
    """

    values: Tensor
    image: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    data: Callable[[Tensor], Tensor]


def to_blocks(c: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """Returns E c: every pixel of c becomes a block of factor x factor, cropped to `size`."""
    if factor > 1:
        c = functional.interpolate(c, scale_factor=factor, mode="nearest")
    return c[..., : size[-2], : size[-1]]


def sum_blocks(x: Tensor, factor: int) -> Tensor:
    """Returns E^T x, the sums over the blocks of `to_blocks`."""
    if factor == 1:
        return x
    x = functional.pad(x, (0, -x.shape[-1] % factor, 0, -x.shape[-2] % factor))
    return functional.avg_pool2d(x, factor) * factor**2


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Returns <a, b> per image, shape (B, 1, ..., 1), which broadcasts with a."""
    return (a * b).flatten(1).sum(dim=1).reshape(-1, *[1] * (a.ndim - 1))


def per_image(value: float | Tensor, like: Tensor) -> Tensor:
    """Returns a number, or one per image, as a tensor (B, 1, ..., 1) that broadcasts with `like`.

    Arguments:
        value: A number, or a tensor of one element or of one per image.
        like: Shape (B, ...); its dtype and device are taken.

    Raises:
        ValueError: A tensor has neither one element nor one per image.
    """
    count, ones = len(like), [1] * (like.ndim - 1)
    if not isinstance(value, Tensor):  # no copy to the device: it would synchronise
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
    """Returns 1 / (power + shift) of a spectrum, 0 where that sum is at rounding level.

    With shift = 0 this is the pseudo-inverse. Sums below eps^1.5 of the largest power of an image
    count as 0; those are singular values below eps^0.75 of the largest one.

    Arguments:
        power: Squared singular values >= 0.
        shift: Damping >= 0; it broadcasts with `power`.
        axes: Axes over which the largest power is taken: of an image, or of a channel.
    """
    total = power + shift
    floor = torch.finfo(power.dtype).eps ** 1.5 * power.amax(tuple(axes), keepdim=True)
    return torch.where(total > floor, 1 / torch.where(total > floor, total, 1), 0)


def split_along(r: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Returns <u, r> and r - <u, r> u for vectors u along axis 1, of norm 1 or 0.

    The second is accurate relative to its own size, even where it is much smaller than r.
    """
    along = (u.conj() * r).sum(dim=1, keepdim=True)
    rest = r - along * u
    rest = rest - (u.conj() * rest).sum(dim=1, keepdim=True) * u
    return along[:, 0], rest


def fast_size(n: int) -> int:
    """Returns the smallest integer >= n without prime factors above 7, for fast FFTs.

    >>> fast_size(2047), fast_size(121)
    (2048, 125)
    """
    m = n
    for prime in (2, 3, 5, 7):
        while m % prime == 0:
            m //= prime
    return n if m == 1 else fast_size(n + 1)


def fast_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Returns `fast_size` of height and width, the last two numbers of a shape."""
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
    """Solves M x = b by preconditioned conjugate gradient, M symmetric positive (semi-)definite.

    Every image has its own step sizes. A converged image stops changing, so its result does not
    depend on the rest of the batch. There is no host synchronisation unless `tolerance` is set
    (then every 10 iterations).

    Arguments:
        matrix: Applies the matrix to a batch (B, ...).
        b: Right-hand sides, shape (B, ...).
        start: First iterate, or None for 0.
        iterations: Largest number of iterations.
        preconditioner: Applies an approximate inverse, symmetric positive definite.
        tolerance: An image has converged when ||b - M x|| <= tolerance ||b||.
        flat: Directions with a curvature <p, M p> / <p, p> of at most this fraction of the
            largest are skipped: they are rounding errors if M is singular.

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
    """Returns L M^{-1} r by conjugate gradient, where one product gives both M p and L p.

    For M = A C A^T and L = C A^T with an expensive product with C: this saves the application
    of L to the solution.

    Arguments:
        matrix: Maps p, shape (B, ...), to (M p, L p).
        b: Reference of the relative residual ||r|| / ||b||, shape (B, ...).
        r: Right-hand sides, shape (B, ...).
        iterations, preconditioner, tolerance, flat: As for `cg`.
        least: Lower bound of the eigenvalues of M, a number or shape (B, 1, ..., 1), for an M
            that is only nearly symmetric. Curvatures below it are raised to it; directions of
            negative curvature are skipped.

    Returns:
        L M^{-1} r, of the shape of L p.
    """
    precondition = preconditioner or (lambda r: r)
    image: Tensor | float = 0.0
    z = precondition(r)
    p, rz = z, inner(r, z)
    floor = max(tolerance, torch.finfo(b.dtype).eps) ** 2 * inner(b, b)
    steepest = torch.zeros_like(floor)
    for iteration in range(iterations):
        # with a singular preconditioner, <r, z> is 0 once only its null space is left in r
        active = (inner(r, r) > floor) & (rz > 0)
        if tolerance and iteration % 10 == 0 and not active.any():
            break
        q, u = matrix(p)
        curvature, length2 = inner(p, q), inner(p, p)
        steepest = torch.maximum(steepest, curvature / torch.where(length2 > 0, length2, 1))
        bounded = torch.maximum(curvature, least * length2)
        # Directions of negative curvature are skipped: a step along one increases the error, by
        # a lot where the bound `least` is small compared with M.
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
    """Returns L M^{-1} r by generalised conjugate residuals; one product gives M p and L p.

    The residual never grows, for any M: M may be indefinite and not symmetric, where the step
    lengths of `cg_image` are unbounded. There is no host synchronisation.

    Arguments:
        matrix: Maps p, shape (B, ...), to (M p, L p).
        r: Right-hand sides, shape (B, ...).
        iterations: Number of iterations, of one product with M each; all directions are stored.
        preconditioner: Applies an approximate inverse.

    Returns:
        L M^{-1} r, of the shape of L p.

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
        size_new = inner(q, q)
        # A repeated direction minus the earlier ones is rounding error; so is a tiny residual.
        useful = (size_new > eps * size) & (inner(r, r) > floor)
        step = torch.where(useful, inner(r, q) / torch.where(useful, size_new, 1), 0)
        image = image + per_image(step, u) * u
        r = r - step * q
        # a skipped direction has infinite size, hence share 0 in later ones
        earlier.append((q, u, torch.where(useful, size_new, torch.inf)))
    return image if isinstance(image, Tensor) else torch.zeros_like(r)


def solve(
    matrix: Callable[[Tensor], Tensor],
    b: Tensor,
    iterations: int,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 1e-6,
) -> Tensor:
    """Solves M x = b by `cg` with restarts, checking the true residual b - M x.

    Rounding errors make it differ from the residual that the recursion of `cg` updates. While the
    true residual is above the tolerance, `cg` restarts from the current iterate. The result of a
    restart that increases the residual, possible if the matrix is singular, is discarded.

    Arguments:
        matrix, b, preconditioner, tolerance: As for `cg`.
        iterations: Largest number of iterations per run of `cg`; there are at most 3 runs.

    Raises:
        ArithmeticError: A relative residual is above 1e-3. A solution with a residual between
            the tolerance and 1e-3 is returned without an error.
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
    """Raises if a relative residual is above 1e-3.

    Arguments:
        residual2: Squared relative residuals.
        when: Words for the error message, such as "after 50 iterations".
        tolerance: Wanted relative residual, for the error message.

    Raises:
        ArithmeticError: A relative residual is above 1e-3.
    """
    if (residual2 > WORST_RESIDUAL**2).any():
        raise ArithmeticError(
            f"a linear system did not converge: its relative residual is "
            f"{residual2.max().sqrt():.1e} {when}, and should be {tolerance:.0e}: allow more "
            f"iterations, or set a larger noise level of the measurement or a larger floor of the "
            f"prior"
        )
