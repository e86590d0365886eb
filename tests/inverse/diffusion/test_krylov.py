"""Krylov subspaces and eigenvalues of small matrices, against torch.linalg."""

import pytest
import torch
from torch import Tensor

from genprior.inverse.diffusion.krylov import eigen, krylov, spectral_function


def symmetric(batch: int, size: int) -> Tensor:
    A = torch.randn(batch, size, size, dtype=torch.float64)
    return A @ A.mT / size + torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_eigenvalues_and_vectors(size: int) -> None:
    T = symmetric(3, size)
    values, V = eigen(T)
    assert torch.allclose(values.sort().values, torch.linalg.eigvalsh(T))
    assert torch.allclose(V.mT @ V, torch.eye(size, dtype=T.dtype).expand_as(T))
    assert torch.allclose(T @ V, V * values[:, None])


def test_functions_of_matrices() -> None:
    T = symmetric(3, 5)
    assert torch.allclose(spectral_function(T, torch.exp), torch.matrix_exp(T))
    assert torch.allclose(spectral_function(T, torch.reciprocal), T.inverse())


def test_the_basis_is_orthonormal_and_spans_the_powers() -> None:
    M, n = symmetric(2, 12), torch.randn(2, 12, dtype=torch.float64)
    norm, V, T = krylov(lambda v: (M @ v[..., None])[..., 0], n, 4)
    assert torch.allclose(norm[:, 0], n.norm(dim=1))
    assert torch.allclose(V @ V.mT, torch.eye(4, dtype=n.dtype).expand(2, 4, 4))
    assert torch.allclose(T, V @ M @ V.mT)
    power = n
    for _ in range(4):
        inside = (power[:, None] @ V.mT @ V)[:, 0]
        assert torch.allclose(inside, power)
        power = (M @ power[..., None])[..., 0]


def test_all_products_give_the_function_of_the_whole_matrix() -> None:
    M, n = symmetric(1, 6), torch.randn(1, 6, dtype=torch.float64)
    norm, V, T = krylov(lambda v: (M @ v[..., None])[..., 0], n, 6)
    first = spectral_function(T, torch.sqrt)[:, :, 0]
    root = norm * (first[:, None] @ V)[:, 0]
    assert torch.allclose(root, (spectral_function(M, torch.sqrt) @ n[..., None])[..., 0])


def test_a_subspace_that_ends_early_adds_nothing() -> None:
    n = torch.randn(1, 5, dtype=torch.float64)
    _, V, T = krylov(lambda v: 3 * v, n, 3)  # one direction is all there is
    assert torch.equal(V[:, 1:], torch.zeros(1, 2, 5, dtype=n.dtype))
    assert T[0, 0, 0] == pytest.approx(3)
