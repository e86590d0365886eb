"""Wiener filter with a Laplacian, and Richardson-Lucy: deblurring without a prior.

    Wiener              x^ = k^* y^ / (|k^|^2 + balance |L^|^2)
    Richardson-Lucy     x <- x  A^T (y / A x) / A^T 1

References:
    Using Markov random fields to solve deconvolution and restoration problems, Orieux,
    Giovannelli and Rodet, 2010 (scikit-image's filter).
    Bayesian-based iterative method of image restoration, Richardson, 1972; Lucy, 1974.

Differs from the authors' code:
    1. For a non-circular blur the measurement is padded by reflection before filtering.
    2. Richardson-Lucy uses the boundary condition of the operator, not zeros.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import skimage
import torch
from torch import Tensor

from genprior.inverse.base import setting
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Convolution, Operator

BALANCES = tuple((10.0 ** np.arange(-3, 0.01, 0.25)).tolist())
SMALLEST = 1e-12
# Rounding error of a blur whose kernel sums to 1, in units of the machine precision.
ROUNDING = 64


@dataclass(frozen=True)
class Wiener(Baseline):
    """scikit-image's `wiener`.

    Arguments:
        balance: Weight of the Laplacian; None means `weight` times the noise variance.
        weight: Inverse variance of the Laplacian of an image; the default was the best power
            of 2 on four photos of BSDS500 that are in no benchmark here.
    """

    summary: ClassVar[str] = "Wiener filter with a Laplacian"

    balance: float | None = None
    weight: float = setting(128.0, gt=0)

    def suits(self, operator: Operator) -> bool:
        return isinstance(operator, Convolution)

    def choices(self, noise_std: float) -> Mapping[str, Sequence[Any]]:
        return {"balance": BALANCES}

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        pads, inside = _padding(operator, y)
        images = []
        for number, (image, sigma) in enumerate(zip(y, noise_std.tolist(), strict=True)):
            kernel = operator.kernel[number if len(operator.kernel) > 1 else 0, 0]
            balance = self.weight * sigma**2 if self.balance is None else self.balance
            channels = [
                skimage.restoration.wiener(
                    np.pad(channel, pads, mode="symmetric"),
                    kernel.cpu().double().numpy(),
                    max(balance, SMALLEST),
                    clip=False,
                )[inside]
                for channel in image.cpu().double().numpy()
            ]
            images.append(np.stack(channels))
        return torch.from_numpy(np.stack(images)).to(y)


def _padding(operator: Operator, y: Tensor) -> tuple[list[tuple[int, int]], tuple]:
    """Returns the padding per axis for a circular filter, and the slices of the image in it."""
    shape = operator.image_shape(y.shape)
    if operator.boundary == "circular":
        return [(0, 0), (0, 0)], (slice(None), slice(None))
    pads, inside = [], []
    for axis in (2, 3):
        position = torch.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(4)])
        before = int(operator.crop_margin(position.expand(shape)).min())
        after = shape[axis] - y.shape[axis] - before
        margin = operator.kernel.shape[axis]
        pads.append((before + margin, after + margin))
        inside.append(slice(margin, margin + shape[axis]))
    return pads, tuple(inside)


@dataclass(frozen=True)
class RichardsonLucy(Baseline):
    """Maximum likelihood under Poisson noise, stopped early.

    Arguments:
        iterations: Number of iterations; more give a sharper image with more noise.
    """

    ignores_noise: ClassVar[bool] = True
    summary: ClassVar[str] = "Richardson-Lucy deconvolution"

    iterations: int = setting(40, ge=1)

    def suits(self, operator: Operator) -> bool:
        return isinstance(operator, Convolution) and bool((operator.kernel >= 0).all())

    def choices(self, noise_std: float) -> Mapping[str, Sequence[Any]]:
        return {"iterations": (3, 5, 10, 20, 40, 80)}

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        # a blur by FFT has rounding errors: values that should be 0 may be negative
        floor = ROUNDING * torch.finfo(y.dtype).eps
        y = y.clamp(min=0)
        weight = operator.A_adjoint(torch.ones_like(y))
        observed = weight > floor
        x = torch.full(operator.image_shape(y.shape), 0.5).to(y)
        for _ in range(self.iterations):
            ratio = operator.A_adjoint(y / operator.A(x).clamp(min=floor))
            x = torch.where(observed, x * ratio.clamp(min=0) / weight.clamp(min=floor), x)
        return x
