"""The laws that every operator must pass."""

import torch
from torch import Tensor

from genprior.operators.base import Operator


def dense(op: Operator, image: Tensor) -> Tensor:
    """The matrix of an operator, measurements by pixels, from the images of a basis.

    Arguments:
        op: The operator.
        image: One image (1, C, H, W), for its shape.
    """
    basis = torch.eye(image.numel(), dtype=image.dtype)
    columns = [op.A(pixel.reshape(image.shape)).flatten() for pixel in basis]
    return torch.stack(columns, dim=1)


def check_operator(op: Operator, x: Tensor, rtol: float = 1e-9) -> None:
    """Checks an operator on a batch of random float64 images.

    Arguments:
        op: The operator.
        x: Images (B, C, H, W), small: matrices of C H W columns are inverted.
        rtol: Tolerance of the solves, relative to the norm of the result.
    """
    assert x.dtype == torch.float64
    generator = torch.Generator().manual_seed(1)
    y = op.A(x)
    v = torch.randn(y.shape, generator=generator, dtype=x.dtype)
    u = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    given = [t.clone() for t in (x, v, u)]

    _check_linear(op, x, u, v)
    _check_solves(op, x, v, rtol)
    _check_independence(op, x, v)
    for before, after in zip(given, (x, v, u), strict=True):
        assert torch.equal(before, after), "a caller's tensor was changed"


def _check_linear(op: Operator, x: Tensor, u: Tensor, v: Tensor) -> None:
    assert op.image_shape(v.shape) == x.shape
    _close(op.A(2 * x - 3 * u), 2 * op.A(x) - 3 * op.A(u), 1e-12, "A is not linear")
    forward, backward = (op.A(u) * v).sum(), (u * op.A_adjoint(v)).sum()
    scale = op.A(u).norm() * v.norm()
    assert (forward - backward).abs() <= 1e-10 * scale, "A_adjoint is not the adjoint of A"
    assert torch.equal(op.measured(v), op.observed(torch.ones_like(v)).flatten(1).sum(dim=1))
    assert op.visible(x).shape[-2:] == op.visible(u).shape[-2:]
    for k in (1.5, 0.25):
        _close(op.prox_l2(u, v, k), op.prox(u, v, 1 / k), 1e-12, "prox_l2 is not prox")
    _close(op.A_dagger(v), op.pinv(v), 1e-12, "A_dagger is not pinv")


def _check_solves(op: Operator, x: Tensor, v: Tensor, rtol: float) -> None:
    batch = len(x)
    y = op.A(x)
    _close(op.A(op.pinv(y)), y, rtol, "A pinv A is not A")
    ramp = torch.linspace(0.1, 1, batch, dtype=x.dtype)
    with_zero = ramp.clone()
    with_zero[0] = 0
    matrices = [dense(op.select([i]), x[i : i + 1]) for i in range(batch)]
    _close(op.pinv(v), _dense_prox(matrices, 0 * x, v, 0 * ramp), rtol, "pinv")
    for weight in (0.0, 1e-3, 0.7, ramp, with_zero):
        weights = weight if isinstance(weight, Tensor) else torch.full_like(ramp, weight)
        _close(op.prox(x, v, weight), _dense_prox(matrices, x, v, weights), rtol, "prox")
        for c in (1.0, 2 - ramp):
            expected = _dense_gram(matrices, v, c + 0 * ramp, weights)
            _close(op.solve_gram(v, c, weight), expected, rtol, "solve_gram")


def _dense_prox(matrices: list[Tensor], x: Tensor, y: Tensor, rho: Tensor) -> Tensor:
    rows = []
    for A, x_i, y_i, rho_i in zip(matrices, x.flatten(1), y.flatten(1), rho, strict=True):
        if rho_i == 0:
            rows.append(x_i + torch.linalg.pinv(A) @ (y_i - A @ x_i))
        else:
            normal = A.mT @ A + rho_i * torch.eye(A.shape[1], dtype=A.dtype)
            rows.append(torch.linalg.solve(normal, A.mT @ y_i + rho_i * x_i))
    return torch.stack(rows).reshape(x.shape)


def _dense_gram(matrices: list[Tensor], v: Tensor, c: Tensor, sigma2: Tensor) -> Tensor:
    rows = []
    for A, v_i, c_i, s_i in zip(matrices, v.flatten(1), c, sigma2, strict=True):
        gram = c_i * A @ A.mT + s_i * torch.eye(len(A), dtype=A.dtype)
        inverse = torch.linalg.pinv(gram, hermitian=True) if s_i == 0 else gram.inverse()
        rows.append(inverse @ v_i)
    return torch.stack(rows).reshape(v.shape)


def _check_independence(op: Operator, x: Tensor, v: Tensor) -> None:
    rho = torch.linspace(0.1, 1, len(x), dtype=x.dtype)
    for i in range(len(x)):
        one, x_i, v_i = op.select([i]), x[i : i + 1], v[i : i + 1]
        for alone, together in (
            (one.A(x_i), op.A(x)),
            (one.A_adjoint(v_i), op.A_adjoint(v)),
            (one.pinv(v_i), op.pinv(v)),
            (one.prox(x_i, v_i, rho[i : i + 1]), op.prox(x, v, rho)),
            (one.solve_gram(v_i, 1.0, rho[i : i + 1]), op.solve_gram(v, 1.0, rho)),
        ):
            _close(alone[0], together[i], 1e-10, "images of a batch influence each other")


def _close(a: Tensor, b: Tensor, rtol: float, law: str) -> None:
    assert a.shape == b.shape, f"{law}: shapes {tuple(a.shape)} and {tuple(b.shape)}"
    error = (a - b).norm() / b.norm().clamp(min=1e-30)
    assert error <= rtol, f"{law}: relative error {error:.2e}"
