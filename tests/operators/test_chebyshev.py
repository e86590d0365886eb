import pytest
import torch

from genprior.operators.chebyshev import chebyshev, largest_singular, near_gram_inverse


def matrix(rows: int, columns: int, smallest: float) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    U, _ = torch.linalg.qr(torch.randn(rows, rows, generator=draw, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(columns, columns, generator=draw, dtype=torch.float64))
    count = min(rows, columns)
    s = torch.logspace(0, torch.tensor(smallest).log10().item(), count, dtype=torch.float64)
    return U[:, :count] * s @ V[:, :count].T


def test_the_error_decays_at_the_rate_of_chebyshev_polynomials() -> None:
    M = matrix(30, 30, 0.05)
    M = M @ M.T
    least, largest = 0.05**2, 1.0
    for products in (4, 20, 60):
        P = chebyshev(lambda v: v @ M, torch.eye(30).double(), *bounds(least, largest), products)
        ratio = (largest / least) ** 0.5
        rate = 2 * ((ratio - 1) / (ratio + 1)) ** (products + 1)
        errors = torch.linalg.eigvalsh(torch.eye(30) - (P @ M + M @ P.T) / 2)
        assert errors.abs().max() <= rate
        torch.testing.assert_close(P, P.T)


def bounds(least: float, largest: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((30, 1), least).double(), torch.full((30, 1), largest).double()


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (20, 20)])
@pytest.mark.parametrize("sigma2", [0.0, 1e-8, 1e-2, 10.0])
@pytest.mark.parametrize("c", [1e-6, 0.3, 100.0])
def test_the_preconditioner_is_positive_and_near(
    shape: tuple[int, int], sigma2: float, c: float
) -> None:
    A = 7 * matrix(*shape, 0.01)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x @ A.T

    def adjoint(y: torch.Tensor) -> torch.Tensor:
        return y @ A

    start = torch.ones(2, shape[1], dtype=torch.float64)
    norm = largest_singular(forward, adjoint, start)
    torch.testing.assert_close(norm, torch.full((2,), 7.0).double(), rtol=0.05, atol=0)
    one = torch.eye(shape[0]).double()
    P = near_gram_inverse(forward, adjoint, one, c, sigma2, norm[:1])
    torch.testing.assert_close(P, P.T, rtol=1e-6, atol=1e-6 * P.abs().max().item())
    assert torch.linalg.eigvalsh(P).min() > 0
    G = c * A @ A.T + sigma2 * one
    roots = torch.linalg.cholesky(P)
    values = torch.linalg.eigvalsh(roots.T @ G @ roots)
    before = torch.linalg.eigvalsh(G)
    assert values.max() < 2
    if sigma2:
        spread = before.max() / before.min()
        assert values.max() / values.min() <= max(1.001, spread / 10)
