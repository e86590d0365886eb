import pytest
import torch
from contracts import check_solver, dense, measure
from golden import distance
from oracles import Crooked, Dense, Replay, Silence, normals
from papers import alpha_bars, ddim, measurement, predict
from torch import Tensor

from genprior.inverse.diffusion.mmps import MMPS
from genprior.operators.base import Operator
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser


def test_laws() -> None:
    check_solver(MMPS(steps=3, iterations=2))


class Bowl(Crooked):
    """The gradient of a smooth function: non-linear, with a symmetric positive Jacobian."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        n = x[0].numel()
        weight = normals(1, n, n, seed=3)[0] / n**0.5
        inside = torch.tanh((x - 0.5).flatten(1) @ weight.mT)
        return 0.5 + 0.2 * (x - 0.5) + 0.1 * (inside @ weight).reshape(x.shape)


def in_the_papers_notation(
    solver: MMPS, y: Tensor, op: Operator, prior: Denoiser, noise_std: float, draws: list[Tensor]
) -> Tensor:
    """The sampler for one image, its Jacobian and its solve by dense algebra."""
    u, *rest = draws
    levels = alpha_bars(solver.steps)
    A, v = dense(op, u), measurement(y, op, u)
    for k, (a, a_next) in enumerate(zip(levels, levels[1:], strict=False)):
        u_hat = predict(prior, u, a)
        J = torch.autograd.functional.jacobian(lambda w, a=a: predict(prior, w, a), u)
        V = (1 - a) / a**0.5 * J.reshape(u.numel(), u.numel())
        gram = (2 * noise_std) ** 2 * torch.eye(len(A), dtype=A.dtype) + A @ V @ A.mT
        weights = torch.linalg.pinv(gram, hermitian=True) @ (v - op.A(u_hat)).flatten()
        u_hat = u_hat + (V @ A.mT @ weights).reshape(u.shape)
        z = rest[k] if k < len(rest) else torch.zeros_like(u)
        u = ddim(u, u_hat, z, a, a_next, solver.eta)
    return (u + 1) / 2


@pytest.mark.parametrize(
    "op",
    [Denoising(), Inpainting(random_keep((1, 1, 4, 4), 0.4)), SuperResolution(2, "box")],
    ids=lambda op: type(op).__name__,
)
@pytest.mark.parametrize(("noise_std", "eta"), [(0.0, 1.0), (0.1, 0.4)])
def test_agrees_with_the_paper_in_its_own_notation(
    op: Operator, noise_std: float, eta: float
) -> None:
    solver = MMPS(3, eta, iterations=40, spacing="ddpm")
    x, *draws = normals(4, 1, 2, 4, 4)
    y = measure(op, 0.5 + 0.2 * x, torch.tensor(noise_std))
    ours = solver(y, op, Bowl(), noise_std, Replay(draws))
    theirs = in_the_papers_notation(solver, y, op, Bowl(), noise_std, draws)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_the_mean_is_exact_for_gaussian_priors() -> None:
    prior, noise_std, shape = Dense(), 0.05, (1, 4, 6)
    op = Inpainting(random_keep((1, *shape), 0.4))
    y = measure(op, prior.draw(1, shape), torch.tensor(noise_std))
    A, S = dense(op, torch.zeros(1, *shape, dtype=y.dtype)), prior.cov(shape)
    K = S @ A.mT @ (A @ S @ A.mT + noise_std**2 * torch.eye(len(A))).inverse()
    expected = 0.5 + K @ (y.flatten() - A.sum(dim=1) / 2)
    solver = MMPS(12, iterations=40, sigma_max=200.0)
    mean = solver(y, op, prior, noise_std, Silence()).flatten()
    assert (mean - expected).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("steps", "eta", "noise_std", "expected"),
    [
        (10, 1.0, 0.05, (0.0703, 0.0, 0.187)),
        pytest.param(20, 0.0, 0.2, (0.0424, 0.0006, 0.597), marks=pytest.mark.slow),
        pytest.param(100, 1.0, 0.05, (0.0195, 0.0, 0.727), marks=pytest.mark.slow),
        pytest.param(100, 0.0, 0.2, (0.0112, 0.0007, 0.894), marks=pytest.mark.slow),
    ],
)
def test_distance_to_the_posterior_is_as_computed_independently(
    steps: int, eta: float, noise_std: float, expected: tuple[float, float, float]
) -> None:
    found = distance(MMPS(steps, eta, iterations=20, spacing="ddpm"), noise_std)
    assert found == pytest.approx(expected, rel=0.01, abs=6e-5)
