"""Properties that every operator and every solver must have."""

from collections.abc import Iterator

import torch
from oracles import Dense, normals
from torch import Tensor

from genprior.core.linalg import sum_blocks, to_blocks
from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, misfit
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution

KEYS = [(4, 0), (4, 1), (9, 0)]
NOISE_STD = (0.0, 0.05, 0.2)


def dense(op: Operator, image: Tensor) -> Tensor:
    """Returns the matrix of an operator, shape (measurements, pixels), from unit images.

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
        x: Small images (B, C, H, W): matrices with C H W columns are inverted.
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
    _close(op.gram(u), op.A_adjoint(op.A(u)), 1e-12, "gram is not A^T A")
    for factor in (1, 2, 3):
        coarse = torch.linspace(0, 1, sum_blocks(u, factor).numel(), dtype=u.dtype).sin()
        coarse = coarse.reshape(sum_blocks(u, factor).shape)
        expected = sum_blocks(op.gram(to_blocks(coarse, factor, u.shape)), factor)
        _close(op.block_gram(coarse, factor, u.shape), expected, 1e-12, "block_gram")
    scale = op.A(u).norm() * v.norm()
    assert (forward - backward).abs() <= 1e-10 * scale, "A_adjoint is not the adjoint of A"
    assert torch.equal(
        op.num_measurements(v), op.mask_unmeasured(torch.ones_like(v)).flatten(1).sum(dim=1)
    )
    assert op.crop_margin(x).shape[-2:] == op.crop_margin(u).shape[-2:]


def _check_solves(op: Operator, x: Tensor, v: Tensor, rtol: float) -> None:
    batch = len(x)
    y = op.A(x)
    _close(op.A(op.pinv(y)), y, rtol, "A pinv A is not A")
    ramp = torch.linspace(0.1, 1, batch, dtype=x.dtype)
    with_zero = ramp.clone()
    with_zero[0] = 0
    matrices = [dense(op.select([i]), x[i : i + 1]) for i in range(batch)]
    _close(op.pinv(v), _dense_prox(matrices, 0 * x, v, 0 * ramp), rtol, "pinv")
    fit = op.proximal(v)
    for weight in (0.0, 1e-3, 0.7, ramp, with_zero):
        weights = weight if isinstance(weight, Tensor) else torch.full_like(ramp, weight)
        _close(op.prox(x, v, weight), _dense_prox(matrices, x, v, weights), rtol, "prox")
        _close(fit(x, weight), op.prox(x, v, weight), rtol, "proximal")
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


def check_solver(
    solver: Solver, operators: tuple[str, ...] = (), seeded: bool | None = None
) -> None:
    """Checks a solver that needs a denoiser or a decoder on batches of three small images.

    Arguments:
        solver: The solver, with few steps.
        operators: Names in `measurements` of the operators to test; () means all.
        seeded: Whether its answer depends on the seed; None means `solver.stochastic`.
    """
    for dtype, channels, tolerance in ((torch.float64, 3, 1e-10), (torch.float32, 1, 1e-5)):
        for name, op, shape in measurements(channels):
            if name in operators or not operators:
                prior = Dense(dtype=dtype)
                y = measure(op, prior.draw(3, shape), torch.tensor(NOISE_STD))
                law = f"{type(solver).__name__}, {name}, {channels} channels, {dtype}"
                draws = solver.stochastic if seeded is None else seeded
                _check_solver(solver, op, prior, y, tolerance, draws, law)


def measurements(channels: int) -> Iterator[tuple[str, Operator, tuple[int, int, int]]]:
    """Yields a name, an operator of three images and the shape of an image, never square."""
    kernels = torch.rand(3, 1, 3, 2, generator=torch.Generator().manual_seed(2))
    kernels[..., 1, 1] += 4  # so that rounding is not amplified by inverting the blur
    valid = Blur(kernels, "valid", iterations=400, tolerance=1e-13)
    yield "inpainting", Inpainting(random_keep((3, 1, 7, 10), 0.5)), (channels, 7, 10)
    yield "valid blur", valid, (channels, 7, 8)
    yield "circular blur", Blur(kernels, "circular"), (channels, 7, 9)
    yield "superres", SuperResolution(2, image_size=(7, 10)), (channels, 7, 10)
    yield "denoising", Denoising(), (channels, 9, 5)


def measure(op: Operator, x: Tensor, noise_std: Tensor) -> Tensor:
    """Returns y = A x + sigma n, with fixed noise."""
    y = op.A(x)
    noise = normals(1, *y.shape, seed=7)[0].to(y)
    return y + noise_std.to(y).reshape(-1, 1, 1, 1) * op.mask_unmeasured(noise)


def _check_solver(
    solver: Solver,
    op: Operator,
    prior: Dense,
    y: Tensor,
    tolerance: float,
    seeded: bool,
    law: str,
) -> None:
    sigma = torch.tensor(NOISE_STD, dtype=y.dtype)
    prior.calls.clear()
    prior.products = 0
    tensors = [y, sigma, *prior.parameters(), *op.buffers()]
    before = [(t.clone(), t.requires_grad) for t in tensors]
    state = torch.get_rng_state()
    together = solver(y, op, prior, sigma, Noise(0, KEYS))

    assert together.isfinite().all(), f"{law}: not finite"
    assert together.dtype == y.dtype
    assert not together.requires_grad
    assert together.shape == op.image_shape(y.shape)
    assert torch.equal(state, torch.get_rng_state()), f"{law}: the global RNG was used"
    for tensor, (value, grad) in zip(tensors, before, strict=True):
        assert torch.equal(tensor, value), f"{law}: a tensor of the caller was changed"
        assert tensor.requires_grad == grad and tensor.grad is None, f"{law}: autograd was left on"
    assert sum(shape[0] for shape in prior.calls) == len(together) * solver.nfe, f"{law}: nfe"
    products = len(together) * solver.jacobian_products_for(op, prior)
    assert prior.products == products, f"{law}: products"
    assert solver.jacobian_products_for(op, prior) <= solver.jacobian_products
    assert {shape[1] for shape in prior.calls} == {together.shape[1]}, f"{law}: channels"

    hidden = torch.where(op.mask_unmeasured(torch.ones_like(y)) == 0, 0.7, y)
    answer = solver(hidden, op, prior, sigma, Noise(0, KEYS))
    assert torch.equal(answer, together), f"{law}: the answer depends on pixels in a hole"
    assert torch.equal(
        misfit(answer, hidden, op, sigma), misfit(answer, y, op, sigma)
    ), f"{law}: the misfit depends on pixels in a hole"
    other = solver(y, op, prior, sigma, Noise(1, KEYS))
    assert torch.equal(together, other) != seeded, f"{law}: the seed"
    for i, key in enumerate(KEYS):
        alone = solver(y[i : i + 1], op.select([i]), prior, sigma[i : i + 1], Noise(0, [key]))
        _close(alone[0], together[i], tolerance, f"{law}: image {i} depends on its batch")
