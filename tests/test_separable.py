import torch

from genprior.separable import Separable


def matrices() -> tuple[torch.Tensor, torch.Tensor]:
    """Two vertical matrices, one per image, the second of rank 2, and a horizontal one."""
    generator = torch.Generator().manual_seed(0)
    vertical = torch.randn(2, 1, 3, 5, generator=generator, dtype=torch.float64)
    vertical[1, 0, 2] = vertical[1, 0, 0] - vertical[1, 0, 1]
    return vertical, torch.randn(4, 4, generator=generator, dtype=torch.float64)


def test_it_is_the_kronecker_product() -> None:
    vertical, horizontal = matrices()
    x = torch.randn(2, 1, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    op = Separable(vertical, horizontal, x)
    for i in range(2):
        A = torch.kron(vertical[i, 0], horizontal)
        torch.testing.assert_close(op.A(x)[i].flatten(), A @ x[i].flatten())
        torch.testing.assert_close(op.A_adjoint(y)[i].flatten(), A.mT @ y[i].flatten())
        torch.testing.assert_close(op.pinv(y)[i].flatten(), torch.linalg.pinv(A) @ y[i].flatten())


def test_it_computes_in_the_type_asked_for() -> None:
    x = torch.ones(2, 1, 5, 4)
    op = Separable(*matrices(), x)
    assert {part.dtype for part in (op.A(x), *op.svd)} == {torch.float32}
