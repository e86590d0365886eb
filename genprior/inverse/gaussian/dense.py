"""Dense direct solves for few known pixels, such as a band around a hole.

    (S_CC + delta I) psi = r,    S_cd(x, y) = (t_c * t_d)(x - y) + floor^2 [c = d, x = y]

The covariance of any two pixels is looked up in one table, the autocorrelation of the texton.

References:
    Texture Inpainting Using Efficient Gaussian Conditional Simulation, Galerne and
    Leclaire, 2017.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fft import ifft2

from genprior.priors.base import Factor

# Eigenvalues up to this many rounding errors count as 0.
RANK = 10


def solve_pixels(r: Tensor, known: Tensor, factor: Factor, sigma2: Tensor) -> Tensor:
    """Returns (S_CC + sigma^2 I)^{-1} r on the known entries C of each image, 0 elsewhere.

    It is the pseudo-inverse if neither noise nor a floor makes the matrix positive definite.

    Arguments:
        r: Right-hand sides, shape (B, C, H, W).
        known: 1 for the known entries, 0 for the others, shape (B, C, H, W).
        factor: The covariance S, with a `transfer`.
        sigma2: Variance of the noise per image, shape (B,), >= 0.
    """
    psi, delta = torch.zeros_like(r), (sigma2 + factor.floor**2).tolist()
    for i in range(len(r)):
        if i == 0 or delta[i] != delta[i - 1] or not torch.equal(known[i], known[i - 1]):
            inverse = _inverse(_covariance(known[i], factor.transfer), delta[i])
        psi[i][known[i] > 0] = inverse(r[i][known[i] > 0])
    return psi


def _covariance(known: Tensor, transfer: Tensor) -> Tensor:
    """Returns the covariance of the known entries of one image, without the floor."""
    height, width = transfer.shape[-2:]
    table = ifft2(transfer[:, None] * transfer.conj()[None]).real
    positions = [(channel > 0).nonzero().unbind(dim=1) for channel in known]

    def block(c: int, d: int) -> Tensor:
        (i, j), (k, m) = positions[c], positions[d]
        return table[c, d][(i[:, None] - k) % height, (j[:, None] - m) % width]

    channels = range(len(known))
    return torch.cat([torch.cat([block(c, d) for d in channels], dim=1) for c in channels])


def _inverse(S: Tensor, delta: float) -> Callable[[Tensor], Tensor]:
    if delta > 0:
        S.diagonal().add_(delta)
        factor = torch.linalg.cholesky(S)
        return lambda r: torch.cholesky_solve(r[:, None], factor)[:, 0]
    inverse, zero = pseudo_inverse(S), S.new_zeros(1)
    return lambda r: inverse(r[None], zero)[0]


def pseudo_inverse(S: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the map (r, delta) -> (S + delta I)^{-1} r, for a positive semidefinite matrix S.

    r has shape (B, n); delta >= 0 has shape (B,). Where delta is 0 it is the pseudo-inverse:
    eigenvalues at the level of rounding errors count as 0.
    """
    values, vectors = torch.linalg.eigh(S)
    nonzero = values > RANK * torch.finfo(S.dtype).eps * len(S) * values.amax()

    def inverse(r: Tensor, delta: Tensor) -> Tensor:
        total = torch.where(nonzero, values, 0) + delta[:, None]
        weights = torch.where(total > 0, 1 / torch.where(total > 0, total, 1), 0)
        return (r @ vectors * weights) @ vectors.mT

    return inverse
