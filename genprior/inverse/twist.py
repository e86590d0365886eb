"""How likely the measurement is, given a noisy image: the twist of a particle filter.

    psi(x) = N(y; A D(x), A C A^T + sigma^2 I),    C = sigma_t^2 D'(x)

and, from the same solve, the estimate of E[x0 | x, y] of moment matching. With few measured
numbers it is dense algebra, one product for each. With many the solve is conjugate gradient and
log det a Lanczos quadrature, whose probe is the same for all particles.

References:
    Practical and Asymptotically Exact Conditional Sampling in Diffusion Models, Wu et al., 2023.
    Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature, Ubaru et al., 2017.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.inverse.moments import Moments, krylov, moments, spectral_function
from genprior.linalg import cg_image
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

DENSE_ROWS = 16
TINY = 1e-12


@dataclass(frozen=True)
class Twist:
    """What a particle knows of the data.

    Arguments:
        mean: D(x), shape (B, C, H, W).
        guided: Estimate of E[x0 | x, y], same shape.
        log_psi: log psi(x) up to what is the same for all x, shape (B,).
    """

    mean: Tensor
    guided: Tensor
    log_psi: Tensor


def products(rows: int, iterations: int) -> int:
    """Jacobian products of a twist for so many measured numbers."""
    return rows if rows <= DENSE_ROWS else 2 * iterations


def twist(
    prior: Denoiser,
    x: Tensor,
    sigma: float,
    y: Tensor,
    operator: Operator,
    variance: Tensor,
    iterations: int,
) -> Twist:
    """The twist of particles x at level sigma, shape (B, C, H, W), each with its y.

    Arguments:
        prior, x, sigma: The denoiser and the states.
        y: Measurements, one for each particle.
        operator: A, of that many images.
        variance: sigma^2 of the data, shape (B,).
        iterations: Of the conjugate gradient, and of the quadrature.
    """
    at = moments(prior, x, sigma)
    r = operator.observed(y - operator.A(at.mean))
    solve = _dense if y[0].numel() <= DENSE_ROWS else _krylov
    correction, distance, log_det = solve(r, operator, at, variance, iterations)
    return Twist(at.mean, at.mean + correction, -(distance + log_det) / 2)


def _dense(
    r: Tensor, operator: Operator, at: Moments, variance: Tensor, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """C A^T G^{-1} r, r^T G^{-1} r and log det G, with G = A C A^T + sigma^2 I as a matrix."""
    rows = r[0].numel()
    unit = torch.eye(rows, dtype=r.dtype, device=r.device).reshape(rows, 1, *r.shape[1:])
    columns = [operator.observed(e.expand_as(r)) for e in unit]
    images = [at.cov(operator.A_adjoint(e)) for e in columns]
    G = torch.stack([operator.A(image).flatten(1) for image in images], dim=2)
    seen = torch.stack(columns, dim=1).flatten(2).diagonal(dim1=1, dim2=2)
    # what is not measured is an independent number of variance 1
    G = (G + G.mT) / 2 + torch.diag_embed(seen * variance[:, None] + (1 - seen) + TINY)
    factor = torch.linalg.cholesky_ex(G).L
    w = torch.cholesky_solve(r.flatten(1)[..., None], factor)
    correction = (torch.stack([i.flatten(1) for i in images], dim=2) @ w).reshape(at.mean.shape)
    log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    return correction, (r.flatten(1) * w[..., 0]).sum(dim=1), log_det


def _krylov(
    r: Tensor, operator: Operator, at: Moments, variance: Tensor, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The same without the matrix."""
    noise = variance.reshape(-1, *[1] * (r.ndim - 1))

    def gram(v: Tensor) -> tuple[Tensor, Tensor]:
        image = at.cov(operator.A_adjoint(v))
        both = torch.cat([image.flatten(1), v.flatten(1)], dim=1)
        return operator.observed(operator.A(image)) + noise * v, both

    size = at.mean[0].numel()
    both = cg_image(gram, r, r, iterations, least=noise)
    correction, w = both[:, :size].reshape(at.mean.shape), both[:, size:]
    probe = torch.randn(r.shape[1:], generator=torch.Generator().manual_seed(0)).to(r)
    probe = operator.observed(probe.expand_as(r))
    norm, _, T = krylov(lambda v: gram(v)[0], probe, iterations)
    log_det = spectral_function(T, lambda values: values.clamp(min=TINY).log())[:, 0, 0]
    return correction, (r.flatten(1) * w).sum(dim=1), norm.flatten() ** 2 * log_det
