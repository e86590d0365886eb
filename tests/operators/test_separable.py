import pytest
import torch

from genprior.operators.separable import Separable, svd
from genprior.operators.superres import SuperResolution


def matrices() -> tuple[torch.Tensor, torch.Tensor]:
    """Two vertical matrices, one per image, the second of rank 2, and a horizontal one."""
    generator = torch.Generator().manual_seed(0)
    vertical = torch.randn(2, 1, 3, 5, generator=generator, dtype=torch.float64)
    vertical[1, 0, 2] = vertical[1, 0, 0] - vertical[1, 0, 1]
    return vertical, torch.randn(4, 4, generator=generator, dtype=torch.float64)


def test_separable_is_the_kronecker_product() -> None:
    vertical, horizontal = matrices()
    x = torch.randn(2, 1, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    op = Separable(vertical, horizontal, x)
    for i in range(2):
        A = torch.kron(vertical[i, 0], horizontal)
        torch.testing.assert_close(op.A(x)[i].flatten(), A @ x[i].flatten())
        torch.testing.assert_close(op.A_adjoint(y)[i].flatten(), A.mT @ y[i].flatten())
        torch.testing.assert_close(op.pinv(y)[i].flatten(), torch.linalg.pinv(A) @ y[i].flatten())


def test_it_computes_in_the_given_dtype() -> None:
    x = torch.ones(2, 1, 5, 4)
    op = Separable(*matrices(), x)
    assert {part.dtype for part in (op.A(x), *op.svd)} == {torch.float32}


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("size", [(30, 60), (30, 59), (1, 2)])
def test_singular_value_decomposition(
    quick: bool, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    m, n = size
    matrix = SuperResolution(2)._matrix(n) if quick else torch.ones(m, n, dtype=torch.float64)
    if quick:  # torch's SVD must not be called
        monkeypatch.setattr(torch.linalg, "svd", None)
    U, s, Vh = svd(matrix.expand(2, *size))
    eye = torch.eye(m, dtype=torch.float64).expand(2, m, m)
    torch.testing.assert_close(U * s[:, None] @ Vh, matrix.expand(2, m, n), rtol=0, atol=1e-12)
    for product in (U.mT @ U, Vh @ Vh.mT):
        torch.testing.assert_close(product, eye, rtol=0, atol=1e-13)
    assert (s.diff() <= 0).all()
