"""Krylov subspaces of a denoiser's Jacobian: functions and eigenvalues of small matrices."""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from genprior.core.linalg import inner

SWEEPS = 6

# A basis vector of which a smaller fraction than this is new is rounding error.
REPEATED = 1e-5

Linear = Callable[[Tensor], Tensor]


def krylov(matrix: Linear, n: Tensor, products: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns a Krylov basis of a matrix M, and M projected onto it.

    Arguments:
        matrix: Maps v, shape (B, ...), to M v.
        n: First vectors, shape (B, ...), with d numbers each.
        products: Number of basis vectors, and of products with M.

    Returns:
        The norm |n|, shape (B, 1, ..., 1); an orthonormal basis V of n, M n, M^2 n ..., shape
        (B, products, d); the symmetric part of T = V^T M V, shape (B, products, products).
    """
    norm = inner(n, n).sqrt()
    basis, images = [n / norm.clamp(min=1e-30)], []
    for k in range(products):
        w = matrix(basis[-1])
        images.append(w)
        rounding = REPEATED * inner(w, w).sqrt()
        if k + 1 < products:
            for v in basis:
                w = w - inner(v, w) * v
            for v in basis:  # again, to remove rounding errors
                w = w - inner(v, w) * v
            size = inner(w, w).sqrt()
            basis.append(torch.where(size > rounding, w / size.clamp(min=1e-30), 0))
    V = torch.stack([v.flatten(1) for v in basis], dim=1)
    T = V @ torch.stack([w.flatten(1) for w in images], dim=2)
    return norm, V, (T + T.mT) / 2


def spectral_function(T: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns f(T) for small symmetric matrices (B, m, m); f acts on eigenvalues (B, m)."""
    values, V = eigen(T)
    return (V * f(values)[:, None]) @ V.mT


def eigen(T: Tensor) -> tuple[Tensor, Tensor]:
    """Returns unsorted eigenvalues and eigenvectors of small symmetric matrices (B, m, m).

    It uses Jacobi rotations, since PyTorch's eigenvalue solver would synchronise with the host.
    """
    m = T.shape[-1]
    V = torch.eye(m, dtype=T.dtype, device=T.device).expand_as(T)
    for p, q in list(combinations(range(m), 2)) * SWEEPS:
        angle = torch.atan2(2 * T[:, p, q], T[:, p, p] - T[:, q, q]) / 2
        G = torch.eye(m, dtype=T.dtype, device=T.device).repeat(len(T), 1, 1)
        G[:, p, p] = G[:, q, q] = angle.cos()
        G[:, q, p] = angle.sin()
        G[:, p, q] = -G[:, q, p]
        T, V = G.mT @ T @ G, V @ G
    return T.diagonal(dim1=1, dim2=2), V
