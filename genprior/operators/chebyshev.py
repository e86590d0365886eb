"""Preconditioners for maps of which nothing is known but that they are linear."""

from collections.abc import Callable

import torch
from torch import Tensor

from genprior.core.linalg import inner, per_image

# Products with A^T A that find the largest eigenvalue, and what that may be short of it.
POWERS, SAFETY = 16, 1.2
# Products of the preconditioner; the least eigenvalue that it minds, as a share of the largest.
PRODUCTS, LEAST = 6, 0.01

Linear = Callable[[Tensor], Tensor]


def largest_singular(A: Linear, A_adjoint: Linear, x: Tensor) -> Tensor:
    """About ||A||, from below, by the power method from images x; one per image, shape (B,)."""
    for _ in range(POWERS):
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
    """About (c A A^T + sigma2 I)^{-1} v, a polynomial in A A^T: linear, symmetric, positive.

    Arguments:
        A, A_adjoint: The maps.
        v: Measurements, shape (B, ...).
        c, sigma2, norm: Weights > 0 and >= 0, and ||A||; numbers or shape (B,).
    """
    c, sigma2, norm = (per_image(number, v) for number in (c, sigma2, norm))
    largest = SAFETY * c * norm**2 + sigma2
    least = torch.minimum(torch.maximum(sigma2, LEAST * largest), 0.9 * largest)
    return chebyshev(lambda w: c * A(A_adjoint(w)) + sigma2 * w, v, least, largest, PRODUCTS)


def chebyshev(
    matrix: Linear, b: Tensor, least: Tensor, largest: Tensor, products: int
) -> Tensor:
    """About M^{-1} b, by the polynomial in M that is best between two eigenvalues.

    Linear in b, unlike conjugate gradient, and symmetric: a preconditioner. It is positive
    definite if no eigenvalue of M is above the largest; some may be below the least.

    Arguments:
        matrix: Applies a symmetric positive semi-definite M to a batch (B, ...).
        b: Shape (B, ...).
        least, largest: The eigenvalues, 0 < least < largest; shapes that multiply b.
        products: With M.

    References:
        Iterative Methods for Sparse Linear Systems, Saad, 2003 (algorithm 12.1).
    """
    centre, radius = (largest + least) / 2, (largest - least) / 2
    share = radius / centre
    x = step = b / centre
    r = b
    for _ in range(products):
        r = r - matrix(step)
        following = 1 / (2 * centre / radius - share)
        step = following * (share * step + 2 / radius * r)
        x, share = x + step, following
    return x
