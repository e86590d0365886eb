"""Total variation (TV) regularisation for any linear operator, by the primal-dual method.

    min_x  ||A x - y||^2 / 2 + lambda TV(x),    TV(x) = sum over pixels of |(D x)(pixel)|

where |.| is the Euclidean norm over both directions and all channels, and lambda = weight
sigma^2. Without noise it is the image with the smallest total variation that satisfies A x = y.

    x <- prox_f(x - t D^T p),    p <- project(p + s D (2 x_new - x_old)),    8 s t = 1

References:
    Nonlinear total variation based noise removal algorithms, Rudin, Osher and Fatemi, 1992.
    Color TV: Total variation methods for restoration of vector-valued images, Blomgren and
    Chan, 1998 (the norm over channels here is the one of Bresson and Chan, 2008).
    A first-order primal-dual algorithm for convex problems, Chambolle and Pock, 2011.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.inverse.base import setting
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator

START = 0.01
WEIGHTS = (4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True)
class TotalVariation(Baseline):
    """TV-regularised least squares; for noise-free data the smallest TV with A x = y.

    Arguments:
        weight: lambda / sigma^2; unused without noise. The default was the best power of 2 on
            four photos of BSDS500 that are in no benchmark here.
        iterations: Iterations of the primal-dual method.
        step: Primal step size times lambda (times 1 without noise).
    """

    summary: ClassVar[str] = "total variation"

    weight: float = setting(16.0, gt=0)
    iterations: int = setting(500, ge=1)
    step: float = 0.1

    def suits(self, operator: Operator) -> bool:
        return True

    def choices(self, noise_std: float) -> Mapping[str, Sequence[Any]]:
        return {"weight": WEIGHTS} if noise_std > 0 else {}

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        noisy = noise_std > 0
        scale = torch.where(noisy, self.weight * noise_std**2, torch.ones_like(noise_std))
        t = self.step / scale
        rho = torch.where(noisy, 1 / t, torch.zeros_like(t))
        x = operator.prox(torch.zeros_like(operator.A_adjoint(y)), y, START)
        scale, t = per_image(scale, x), per_image(t, x)
        s = 1 / (8 * t)
        p = _gradient(x) * 0
        for _ in range(self.iterations):
            x_old, x = x, operator.prox(x - t * _gradient_adjoint(p), y, rho)
            p = p + s * _gradient(2 * x - x_old)
            norm = p.square().sum(dim=(1, 2), keepdim=True).sqrt()
            p = p / (norm / scale.unsqueeze(1)).clamp(min=1)
        return x


def _gradient(x: Tensor) -> Tensor:
    """Forward differences, 0 at the last row or column: (B, C, H, W) -> (B, 2, C, H, W)."""
    g = x.new_zeros(len(x), 2, *x.shape[1:])
    g[:, 0, :, :-1] = x[..., 1:, :] - x[..., :-1, :]
    g[:, 1, :, :, :-1] = x[..., 1:] - x[..., :-1]
    return g


def _gradient_adjoint(p: Tensor) -> Tensor:
    x = torch.zeros_like(p[:, 0])
    x[..., 1:, :] += p[:, 0, :, :-1]
    x[..., :-1, :] -= p[:, 0, :, :-1]
    x[..., 1:] += p[:, 1, :, :, :-1]
    x[..., :-1] -= p[:, 1, :, :, :-1]
    return x
