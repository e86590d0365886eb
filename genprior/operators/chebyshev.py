"""Chebyshev preconditioner for linear operators that are given only as functions."""

from collections.abc import Callable

import torch
from torch import Tensor

from genprior.core.linalg import inner, per_image

# Products with A^T A that estimate its largest eigenvalue, and a safety factor for the estimate.
POWER_ITERATIONS, SAFETY = 16, 1.2
# Products of the preconditioner; smallest eigenvalue it is fitted to, relative to the largest.
PRODUCTS, LEAST = 6, 0.01

Linear = Callable[[Tensor], Tensor]


def largest_singular(A: Linear, A_adjoint: Linear, x: Tensor) -> Tensor:
    """Estimates ||A|| from below by the power method from images x; per image, shape (B,)."""
    for _ in range(POWER_ITERATIONS):
        length = inner(x, x).sqrt()
        x = A_adjoint(A(x / torch.where(length > 0, length, 1)))
    return inner(x, x).flatten() ** 0.25


def near_gram_inverse(
    A: Linear,
    A_adjoint: Linear,
    v: Tensor,
    c: float | Tensor,
    sigma2: float | Tensor,
    norm: float | Tensor,
) -> Tensor:
    """Approximates (c A A^T + sigma2 I)^{-1} v by a polynomial in A A^T.

    The map is linear in v, symmetric and positive.

    Arguments:
        A, A_adjoint: The operator and its adjoint.
        v: Measurements, shape (B, ...).
        c, sigma2, norm: Weights c > 0 and sigma2 >= 0, and ||A||; numbers or shape (B,).
    """
    c, sigma2, norm = (per_image(number, v) for number in (c, sigma2, norm))
    largest = SAFETY * c * norm**2 + sigma2
    least = torch.minimum(torch.maximum(sigma2, LEAST * largest), 0.9 * largest)
    return chebyshev(lambda w: c * A(A_adjoint(w)) + sigma2 * w, v, least, largest, PRODUCTS)


def chebyshev(
    matrix: Linear, b: Tensor, least: Tensor, largest: Tensor, products: int
) -> Tensor:
    """Approximates M^{-1} b by the polynomial in M that is best on an interval of eigenvalues.

    The map is linear in b, unlike conjugate gradients, and symmetric: it can precondition. It is
    positive definite if no eigenvalue of M exceeds `largest`; some may be below `least`.

    Arguments:
        matrix: Applies a symmetric positive semi-definite M to a batch (B, ...).
        b: Shape (B, ...).
        least, largest: Ends of the interval, 0 < least < largest; they broadcast with b.
        products: Number of products with M.

    References:
        Iterative Methods for Sparse Linear Systems, Saad, 2003 (algorithm 12.1).
    """
    centre, radius = (largest + least) / 2, (largest - least) / 2
    rho = radius / centre
    x = step = b / centre
    r = b
    for _ in range(products):
        r = r - matrix(step)
        rho_next = 1 / (2 * centre / radius - rho)
        step = rho_next * (rho * step + 2 / radius * r)
        x, rho = x + step, rho_next
    return x
