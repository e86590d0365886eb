"""What a particle filter knows of the data: how likely they are, given one noisy image or two.

With D and C the mean and covariance of x0 given x at level s, the twist is

    psi(x) = N(y; A D, A C A^T + sigma^2 I)

and given x' of the next level s' as well, x0 has by Bayes, were it Gaussian, the moments

    C' = (C^{-1} + (1/s'^2 - 1/s^2) I)^{-1}
    D' = D + C'/s'^2 (x' - D - s'^2/s^2 (x - D))

For a Gaussian prior those are the moments at x' itself. With few measured numbers the likelihood
is dense algebra, one product with C for each. With many the solve is conjugate gradient and
log det a Lanczos quadrature, whose probe is the same for all particles.

References:
    Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, Wu et al., 2023.
    Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature, Ubaru et al., 2017.
"""

import functools

import torch
from torch import Tensor

from genprior.core.linalg import cg_image
from genprior.inverse.diffusion.krylov import eigen, krylov, spectral_function
from genprior.inverse.diffusion.moments import Moments, function_of
from genprior.operators.base import Operator

DENSE_ROWS = 16
TINY = 1e-12


def products(rows: int, iterations: int) -> int:
    """Products with C of a likelihood of so many measured numbers."""
    return rows if rows <= DENSE_ROWS else 2 * iterations


def predicted_moments(
    at: Moments, x: Tensor, x_next: Tensor, sigma_next: float, steps: int
) -> Moments:
    """Moments of x0 given x at level `at.sigma` and x_next at `sigma_next`, were it Gaussian.

    Arguments:
        at: Moments given x alone.
        x, x_next: States, shape (B, C, H, W).
        sigma_next: Level of x_next, in (0, at.sigma).
        steps: Of Lanczos for a product with C', one product with C each.
    """
    ratio = (at.sigma / sigma_next) ** 2

    def cov(v: Tensor) -> Tensor:
        return at.sigma**2 * function_of(at, v, steps, shrunk)

    def shrunk(values: Tensor) -> Tensor:
        values = values.clamp(min=0)
        return values / (1 + (ratio - 1) * values)

    expected = at.mean + (x - at.mean) / ratio
    return Moments(at.mean + cov(x_next - expected) / sigma_next**2, cov, sigma_next)


def log_likelihood(
    y: Tensor, operator: Operator, at: Moments, variance: Tensor, iterations: int
) -> Tensor:
    """log N(y; A D, A C A^T + sigma^2 I) up to what is the same for all D and C.

    Arguments:
        y: Measurements, one for each image.
        operator: A, of that many images.
        at: D and C.
        variance: sigma^2 of the data, shape (B,).
        iterations: Of the conjugate gradient and of the quadrature, where y is large.

    Returns:
        Shape (B,).
    """
    r = y - operator.A(at.mean)
    solve = _dense if y[0].numel() <= DENSE_ROWS else _krylov
    distance, log_det = solve(r, operator, at, variance, iterations)
    return -(distance + log_det) / 2


def _dense(
    r: Tensor, operator: Operator, at: Moments, variance: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """r^T G^{-1} r and log det G, with G = A C A^T + sigma^2 I as a matrix."""
    rows = r[0].numel()
    unit = torch.eye(rows, dtype=r.dtype, device=r.device).reshape(rows, 1, *r.shape[1:])
    columns = [operator.mask_unmeasured(e.expand_as(r)) for e in unit]
    images = [operator.A(at.cov(operator.A_adjoint(e))).flatten(1) for e in columns]
    G = torch.stack(images, dim=2)
    seen = torch.stack(columns, dim=1).flatten(2).diagonal(dim1=1, dim2=2)
    # what is not measured is an independent number of variance 1
    G = (G + G.mT) / 2 + torch.diag_embed(seen * variance[:, None] + (1 - seen))
    values, V = eigen(G)
    # a network's C may have negative eigenvalues
    values = torch.maximum(values, variance.clamp(min=TINY)[:, None])
    turned = (r.flatten(1)[:, None] @ V)[:, 0]
    return (turned.square() / values).sum(dim=1), values.log().sum(dim=1)


def _krylov(
    r: Tensor, operator: Operator, at: Moments, variance: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """The same without the matrix."""
    noise = variance.reshape(-1, *[1] * (r.ndim - 1))

    def gram(v: Tensor) -> Tensor:
        return operator.mask_unmeasured(operator.A(at.cov(operator.A_adjoint(v)))) + noise * v

    w = cg_image(lambda v: (gram(v), v), r, r, iterations, least=noise)
    probe = operator.mask_unmeasured(_probe(r.shape[1:], r.dtype, r.device).expand_as(r))
    norm, _, T = krylov(gram, probe, iterations)
    least = variance.clamp(min=TINY)[:, None]
    log_det = spectral_function(T, lambda values: values.clamp(min=least).log())[:, 0, 0]
    return (r * w).flatten(1).sum(dim=1), norm.flatten() ** 2 * log_det


@functools.lru_cache(maxsize=4)  # a GPU waits for what comes from the CPU, once
def _probe(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    probe = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return probe.to(device=device, dtype=dtype)
