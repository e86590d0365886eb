"""Likelihood of the data given one noisy state or two, for sequential Monte Carlo.

With D and C the mean and covariance of x0 given the state x at level s, the likelihood of y (the
twisting function of Wu et al.) is

    psi(x) = N(y; A D, A C A^T + sigma^2 I)

Let x' be the state at the next level s'. If x0 given x is Gaussian, then by Bayes' rule x0 given x
and x' has the moments

    C' = (C^{-1} + (1/s'^2 - 1/s^2) I)^{-1}
    D' = D + C'/s'^2 (x' - D - s'^2/s^2 (x - D))

For a Gaussian prior these are the moments given x' alone. For a measurement of at most 16
entries the likelihood is computed by dense algebra, with one product with C for each entry. For
more entries the linear system is solved by conjugate gradient, and log det is a Lanczos
quadrature, whose probe is the same for all particles.

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
    """Returns the number of products with C for a measurement of `rows` entries."""
    return rows if rows <= DENSE_ROWS else 2 * iterations


def predicted_moments(
    at: Moments, x: Tensor, x_next: Tensor, sigma_next: float, steps: int
) -> Moments:
    """Returns the moments of x0 given x and x_next, if x0 given x is Gaussian.

    Arguments:
        at: Moments given x alone.
        x, x_next: States at the levels `at.sigma` and `sigma_next`, shape (B, C, H, W).
        sigma_next: Level of x_next, in (0, at.sigma).
        steps: Lanczos steps for a product with C'; each takes one product with C.
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
    """Returns log N(y; A D, A C A^T + sigma^2 I) up to a constant, the same for all D and C.

    It is returned as a sum over the entries of y: with G the covariance of y and r = y - A D,
    entry i has the share -(r_i (G^{-1} r)_i + (log G)_ii) / 2. For large measurements the diagonal
    of log G is estimated from a probe, which is right on average over many entries, not for each.

    Arguments:
        y: Measurements, shape (B, ...).
        operator: A, for B images.
        at: D and C.
        variance: sigma^2 of the data, shape (B,).
        iterations: Iterations of conjugate gradient and of the quadrature; used for measurements
            of more than 16 entries.

    Returns:
        Shares of the log-likelihoods, of the shape of y; 0 for entries that are not measured.
    """
    r = y - operator.A(at.mean)
    solve = _dense if y[0].numel() <= DENSE_ROWS else _krylov
    distance, log_det = solve(r, operator, at, variance, iterations)
    return -(distance + log_det) / 2


def _dense(
    r: Tensor, operator: Operator, at: Moments, variance: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Returns r * G^{-1} r and the diagonal of log G, with G = A C A^T + sigma^2 I as a matrix."""
    rows = r[0].numel()
    unit = torch.eye(rows, dtype=r.dtype, device=r.device).reshape(rows, 1, *r.shape[1:])
    columns = [operator.mask_unmeasured(e.expand_as(r)) for e in unit]
    images = [operator.A(at.cov(operator.A_adjoint(e))).flatten(1) for e in columns]
    G = torch.stack(images, dim=2)
    measured = torch.stack(columns, dim=1).flatten(2).diagonal(dim1=1, dim2=2)
    # an entry that is not measured counts as an independent number of variance 1
    G = (G + G.mT) / 2 + torch.diag_embed(measured * variance[:, None] + (1 - measured))
    values, V = eigen(G)
    # a network's C may have negative eigenvalues
    values = torch.maximum(values, variance.clamp(min=TINY)[:, None])
    coordinates = (r.flatten(1)[:, None] @ V)[:, 0]
    w = (V @ (coordinates / values)[..., None]).reshape(r.shape)
    return r * w, (V.square() @ values.log()[..., None]).reshape(r.shape)


def _krylov(
    r: Tensor, operator: Operator, at: Moments, variance: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """Returns the same two terms as `_dense`, without forming the matrix G.

    With a random probe z, the diagonal of log G is the mean of z * log(G) z.
    """
    noise = variance.reshape(-1, *[1] * (r.ndim - 1))

    def gram(v: Tensor) -> Tensor:
        return operator.mask_unmeasured(operator.A(at.cov(operator.A_adjoint(v)))) + noise * v

    w = cg_image(lambda v: (gram(v), v), r, r, iterations, least=noise)
    probe = operator.mask_unmeasured(_probe(r.shape[1:], r.dtype, r.device).expand_as(r))
    norm, V, T = krylov(gram, probe, iterations)
    least = variance.clamp(min=TINY)[:, None]
    weights = spectral_function(T, lambda values: values.clamp(min=least).log())[:, :, 0]
    return r * w, probe * norm * (weights[:, None] @ V).reshape(r.shape)


@functools.lru_cache(maxsize=4)  # so that a GPU waits for the CPU only once
def _probe(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    probe = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return probe.to(device=device, dtype=dtype)
