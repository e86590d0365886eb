"""Fourier-domain solves of stationary linear systems: one small matrix per frequency.

The operator A x = every s-th pixel of h * x folds s^2 frequencies into one. Its Gram matrix is

    (A S A^T)(w) = s^-2 sum_j h(k_j) (t(k_j) t(k_j)^* + floor^2 I) h(k_j)^*,  k_j = w + n (p, q)

The matrices couple the channels.

References:
    Stochastic Super-Resolution for Gaussian Microtextures, Pierret and Galerne, 2024.

Differs from the authors' code:
    1. Any noise level, and a joint solve over the colour channels; the authors treat each channel
       separately.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fft import fft2, ifft2

from genprior.operators.base import Operator
from genprior.priors.base import Factor

Linear = Callable[[Tensor], Tensor]
# Eigenvalues up to this many rounding errors count as 0.
RANK = 10


def convolution(operator: Operator, x: Tensor, y: Tensor) -> tuple[Tensor, int] | None:
    """Returns (h, s) if A x is every s-th pixel of the circular convolution h * x, else None.

    Arguments:
        operator: A.
        x: A white-noise image for the test, shape (B, C, H, W).
        y: A measurement; only its shape matters.

    Returns:
        Transfer function of each image and channel, (B, C, H, W), and the stride.
    """
    if y.ndim != 4 or y.shape[1] != x.shape[1]:
        return None
    stride = x.shape[-1] // y.shape[-1]
    if tuple(x.shape[-2:]) != (stride * y.shape[-2], stride * y.shape[-1]):
        return None
    impulse = torch.zeros_like(y)
    impulse[..., 0, 0] = 1
    h = fft2(operator.A_adjoint(impulse)).conj()
    expected = ifft2(h * fft2(x)).real[..., ::stride, ::stride]
    actual = operator.A(x)
    if (actual - expected).norm() > 100 * torch.finfo(x.dtype).eps * actual.norm():
        return None
    return h, stride


def gram_inverse(h: Tensor, stride: int, factor: Factor, sigma2: Tensor) -> Linear:
    """Returns the map r -> (A S A^T + sigma^2 I)^{-1} r; without noise the pseudo-inverse.

    It computes in float64 for any type of r: the covariance of a colour texture is so close to
    singular that float32 would cause errors of several per cent in the posterior mean. Devices
    without float64 use the CPU.

    Arguments:
        h, stride: Results of `convolution`.
        factor: The covariance S, with a `transfer`.
        sigma2: Variance of the noise per image, shape (B,), >= 0.
    """
    device = "cpu" if h.device.type == "mps" else h.device
    h, transfer = (t.to(device).to(torch.complex128) for t in (h, factor.transfer))
    sigma2 = sigma2.to(device).double().reshape(-1, 1, 1, 1)
    g = _fold(h * transfer, stride)
    Q = torch.einsum("bcjuv,bdjuv->buvcd", g, g.conj())
    white = _fold(h.abs().square(), stride).sum(dim=2).permute(0, 2, 3, 1)
    Q = (Q + torch.diag_embed(factor.floor**2 * white)) / stride**2
    Q = Q + torch.diag_embed(sigma2.expand(white.shape))
    if (sigma2 > 0).all():
        return _apply(Q.reciprocal() if h.shape[1] == 1 else torch.linalg.inv(Q))
    values, vectors = torch.linalg.eigh(Q)
    largest = values.amax(dim=(1, 2, 3), keepdim=True)
    floor = torch.where(sigma2 > 0, 0, RANK * torch.finfo(values.dtype).eps * largest)
    inverse = torch.where(values > floor, 1 / torch.where(values > floor, values, 1), 0)
    return _apply((vectors * inverse[..., None, :]) @ vectors.mH)


def stationary_preconditioner(
    adjoint: Linear, y: Tensor, factor: Factor, sigma2: Tensor
) -> Linear:
    """Returns an approximate inverse of A S A^T + sigma^2 I, for a non-circular convolution A.

    It pads with zeros, applies the inverse for the circular convolution on the torus of the
    factor, and crops. It is positive definite for any A.

    Arguments:
        adjoint: A^T.
        y: A measurement, of about the size of the image.
        factor: The covariance S, with a `transfer`.
        sigma2: Variance of the noise per image, shape (B,), >= 0.
    """
    height, width = y.shape[-2:]
    size = factor.transfer.shape[-2:]
    impulse = torch.zeros_like(y)
    impulse[..., height // 2, width // 2] = 1
    h = fft2(adjoint(impulse), s=size).abs()
    g = h * factor.transfer
    white = factor.floor**2 * h.square() + sigma2.reshape(-1, 1, 1, 1)
    power = g.abs().square().amax(dim=(1, 2, 3), keepdim=True)
    white = torch.maximum(white, torch.finfo(white.dtype).eps * power)
    total = 1 + (g.abs().square() / white).sum(dim=1, keepdim=True)

    def apply(r: Tensor) -> Tensor:
        v = fft2(r, s=size) / white
        along = (g.conj() * v).sum(dim=1, keepdim=True) / total
        return ifft2(v - g / white * along).real[..., :height, :width]

    return apply


def _fold(h: Tensor, stride: int) -> Tensor:
    """Groups the aliases of each coarse frequency: (B, C, H, W) -> (B, C, s^2, H/s, W/s)."""
    height, width = (n // stride for n in h.shape[-2:])
    h = h.reshape(*h.shape[:2], stride, height, stride, width).transpose(-3, -2)
    return h.reshape(*h.shape[:2], stride**2, height, width)


def _apply(P: Tensor) -> Linear:
    def apply(r: Tensor) -> Tensor:
        v = torch.einsum("buvcd,bduv->bcuv", P, fft2(r.to(P.device)).to(P.dtype))
        return ifft2(v).real.to(r)

    return apply
