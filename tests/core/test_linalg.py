import pytest
import torch

from genprior.core.linalg import cg, cg_image, damped_inverse, gcr_image, per_image, solve


def systems(count: int = 3, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    eye = torch.eye(size, dtype=torch.float64)
    return root @ root.mT + 0.1 * eye, torch.randn(count, size, generator=generator).double()


def test_agrees_with_a_dense_solve():
    matrix, b = systems()
    x = cg(lambda v: (matrix @ v[..., None])[..., 0], b, iterations=60)
    assert torch.allclose(x, torch.linalg.solve(matrix, b), rtol=1e-9, atol=1e-9)


def test_a_preconditioner_and_a_start_do_not_change_the_solution():
    matrix, b = systems()
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    x = cg(
        lambda v: (matrix @ v[..., None])[..., 0],
        b,
        start=torch.ones_like(b),
        iterations=80,
        preconditioner=lambda r: r / diagonal,
    )
    assert torch.allclose(x, torch.linalg.solve(matrix, b), rtol=1e-9, atol=1e-9)


def test_the_images_of_a_batch_are_independent():
    matrix, b = systems()
    b[1] *= 1e6
    together = cg(lambda v: (matrix @ v[..., None])[..., 0], b, iterations=7)
    alone = cg(lambda v: (matrix[:1] @ v[..., None])[..., 0], b[:1], iterations=7)
    assert torch.allclose(together[:1], alone, rtol=1e-9)


def test_tolerance_stops_and_converged_systems_stay_finite():
    matrix, b = systems()
    b[0] = 0
    calls = []

    def apply(v: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return (matrix @ v[..., None])[..., 0]

    x = cg(apply, b, iterations=10_000, tolerance=1e-8)
    assert len(calls) < 200
    assert torch.equal(x[0], torch.zeros(12, dtype=torch.float64))
    residual = (matrix @ x[..., None])[..., 0] - b
    assert (residual.norm(dim=1) <= 1e-8 * b.norm(dim=1)).all()


def test_a_singular_consistent_system_is_solved():
    matrix = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    b = torch.tensor([[2.0, 3.0, 0.0]], dtype=torch.float64)
    x = cg(lambda v: v @ matrix, b, iterations=20)
    assert torch.allclose(x, torch.tensor([[1.0, 3.0, 0.0]], dtype=torch.float64))


def test_a_tolerance_does_not_couple_the_images() -> None:
    matrix, b = systems()
    together = cg(lambda v: (matrix @ v[..., None])[..., 0], b, iterations=60, tolerance=1e-3)
    for i in range(3):
        one = matrix[i : i + 1]
        alone = cg(
            lambda v, one=one: (one @ v[..., None])[..., 0],
            b[i : i + 1],
            iterations=60,
            tolerance=1e-3,
        )
        assert torch.allclose(together[i : i + 1], alone, rtol=1e-9)


def test_damped_inverse_is_a_pseudo_inverse_without_damping() -> None:
    power = torch.tensor([[[[4.0, 1.0], [1e-30, 0.0]]]], dtype=torch.float64)
    like = power.expand(2, 1, 2, 2)
    inverse = damped_inverse(like, per_image(torch.tensor([0.0, 1.0]), like))
    expected = [[0.25, 1.0, 0.0, 0.0], [0.2, 0.5, 1.0, 1.0]]
    assert torch.allclose(inverse.flatten(1), torch.tensor(expected, dtype=torch.float64))


def test_solve_reaches_a_residual_where_rounding_stops_cg():
    scale = torch.logspace(0, -3, 12)
    basis = torch.linalg.qr(systems(1)[0][0]).Q.float()
    matrix, b = (basis * scale) @ basis.T, systems()[1].float()

    def residual(x: torch.Tensor) -> torch.Tensor:
        return (x @ matrix - b).norm(dim=1) / b.norm(dim=1)

    options = {"iterations": 200, "tolerance": 1e-5}
    assert residual(cg(lambda v: v @ matrix, b, **options)).max() > 1e-5
    x = solve(lambda v: v @ matrix, b, **options)
    assert residual(x).max() <= 1e-5
    alone = solve(lambda v: v @ matrix, b[1:2], **options)
    assert torch.allclose(alone[0], x[1], rtol=1e-3)


def test_solve_raises_where_there_is_no_solution():
    matrix = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    b = torch.tensor([[2.0, 3.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    expected = torch.tensor([[1.0, 3.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(solve(lambda v: v @ matrix, b[:1], 20), expected)
    with pytest.raises(ArithmeticError, match=r"residual is .* after 3 x 20 iterations"):
        solve(lambda v: v @ matrix, b, 20)


def test_directions_of_negative_curvature_are_skipped():
    values = torch.tensor([[-1.0, 2.0, 0.01], [0.5, 2.0, 4.0]]).double()
    b = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]).double()
    x = cg_image(lambda p: (values * p, p), b, b, iterations=3, least=0.1)
    torch.testing.assert_close(x[0], torch.zeros(3).double())
    torch.testing.assert_close(x[1], b[1] / values[1])
    # a curvature below `least` is raised to it
    x = cg_image(lambda p: (values * p, p), b.flip(1), b.flip(1), iterations=1, least=0.1)
    torch.testing.assert_close(x[0], torch.tensor([0.0, 0.0, 10.0]).double())


def test_conjugate_residuals_solve_indefinite_and_nonsymmetric_systems():
    matrix, b = systems()
    skew = torch.triu(torch.ones(12, 12).double())
    matrix = matrix - 3 * torch.eye(12).double() + skew - skew.mT
    assert torch.linalg.eigvalsh((matrix + matrix.mT) / 2).min() < 0

    def apply(p):
        q = (matrix @ p[..., None])[..., 0]
        return q, p.repeat(1, 2)

    expected = torch.linalg.solve(matrix, b)
    x = gcr_image(apply, b, 12, lambda r: 2 * r)
    torch.testing.assert_close(x, expected.repeat(1, 2), rtol=0, atol=1e-8)
    # a converged solution stays, and the solution for 0 is 0
    torch.testing.assert_close(gcr_image(apply, b, 30, lambda r: r), x, rtol=0, atol=1e-8)
    assert not gcr_image(apply, 0 * b, 3, lambda r: r).any()


def test_residuals_never_grow():
    matrix, b = systems()
    matrix = matrix - 3 * torch.eye(12).double()
    last = b.norm(dim=1)
    for iterations in range(1, 12):
        x = gcr_image(lambda p: ((matrix @ p[..., None])[..., 0], p), b, iterations, lambda r: r)
        rest = (b - (matrix @ x[..., None])[..., 0]).norm(dim=1)
        assert (rest <= last * (1 + 1e-9)).all()
        last = rest
