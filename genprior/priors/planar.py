"""Planar and radial flows: densities of low-dimensional data, such as points in a plane.

    planar   f(x) = x + u tanh(w^T x + b)             det = 1 + w^T u (1 - tanh^2)
    radial   f(x) = x + beta h (x - c),               det = (1 + beta h)^{n-1}
             h = 1 / (alpha + r), r = |x - c|                (1 + beta h - beta r h^2)

    log p(x) = log N(f_K o ... o f_1(x); 0, I) + sum log det

References:
    Variational Inference with Normalizing Flows, Rezende and Mohamed, 2015.

Differs from the authors' code:
    1. The maps go from data to latents, so that the density of data is in closed form. Sampling
        solves one scalar equation per layer.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from genprior.core.random_streams import Noise
from genprior.priors.base import Density, Encoder, Trainable

BISECTIONS = 60


class PlanarFlow(nn.Module, Encoder, Density, Trainable):
    """Normalising flow of points; a point is an image of n numbers, such as (1, 1, n).

    `genprior train planar points.npy` trains it on an array (N, n), by minimising the mean of
    -`log_prob`. Points need not lie in [0, 1]; near the standard normal law they train best.

    Arguments:
        dimension: Dimension n of a point, >= 1.
        depth: Number of layers, >= 1.
        kind: "planar" or "radial".

    Raises:
        ValueError: An argument is out of its range.

    >>> flow = PlanarFlow(2, depth=4)
    >>> flow.log_prob(torch.zeros(5, 1, 1, 2)).shape
    torch.Size([5])
    """

    def __init__(
        self, dimension: int = 2, depth: int = 16, kind: Literal["planar", "radial"] = "planar"
    ) -> None:
        super().__init__()
        if min(dimension, depth) < 1:
            raise ValueError(f"dimension and depth must be at least 1, got {dimension}, {depth}")
        if kind not in ("planar", "radial"):
            raise ValueError(f"kind must be 'planar' or 'radial', got {kind!r}")
        self._config = {"dimension": dimension, "depth": depth, "kind": kind}
        self.dimension = dimension
        layer = Planar if kind == "planar" else Radial
        self.layers = nn.ModuleList(layer(dimension) for _ in range(depth))

    @property
    def config(self) -> Mapping[str, Any]:
        return self._config

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"flow": self.parameters()}

    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        return {"flow": -self.log_prob(x).mean()}

    def log_prob(self, x: Tensor) -> Tensor:
        z, log_det = x.flatten(1), 0
        for layer in self.layers:
            z, layer_log_det = layer(z)
            log_det = log_det + layer_log_det
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=1) + log_det

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        if image_shape[1:].numel() != self.dimension:
            raise ValueError(
                f"this prior is of {self.dimension} numbers, got {image_shape[1:].numel()}"
            )
        return image_shape[0], self.dimension

    def encode(self, x: Tensor) -> Tensor:
        z = x.flatten(1)
        for layer in self.layers:
            z = layer(z)[0]
        return z

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        self.latent_shape(image_shape)
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z.reshape(image_shape)


class Planar(nn.Module):
    """Planar layer f(x) = x + u tanh(w^T x + b), with u constrained so that f is invertible."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(dimension))
        self.u = nn.Parameter(0.1 * torch.randn(dimension))
        self.b = nn.Parameter(torch.randn(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x) of points (B, n), and log det, shape (B,)."""
        u, h = self._constrained_u(), torch.tanh(x @ self.w + self.b)
        return x + h[:, None] * u, torch.log1p((self.w @ u) * (1 - h**2))

    def inverse(self, y: Tensor) -> Tensor:
        """Returns the x with f(x) = y, differentiable."""
        u = self._constrained_u()
        slope, target = self.w @ u, y @ self.w

        def projected(a: Tensor) -> Tensor:
            return a + slope * torch.tanh(a + self.b)

        a = _root(projected, target, target - slope.abs(), target + slope.abs())
        return y - torch.tanh(a + self.b)[:, None] * u

    def _constrained_u(self) -> Tensor:
        inside = self.w @ self.u
        return self.u + (softplus(inside) - 1 - inside) * self.w / self.w.square().sum()


class Radial(nn.Module):
    """Radial layer f(x) = x + beta h (x - c), with beta > -alpha so that f is invertible."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.randn(dimension))
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.bend = nn.Parameter(0.1 * torch.randn(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x) of points (B, n), and log det, shape (B,)."""
        alpha, beta = self._alpha_beta()
        r = torch.linalg.vector_norm(x - self.centre, dim=1, keepdim=True)
        h = 1 / (alpha + r)
        around = (x.shape[1] - 1) * torch.log1p(beta * h)
        log_det = around + torch.log1p(beta * alpha * h**2)
        return x + beta * h * (x - self.centre), log_det[:, 0]

    def inverse(self, y: Tensor) -> Tensor:
        """Returns the x with f(x) = y, differentiable."""
        alpha, beta = self._alpha_beta()
        R = torch.linalg.vector_norm(y - self.centre, dim=1, keepdim=True)
        # r (1 + beta / (alpha + r)) = R is quadratic in r
        half = (R - alpha - beta) / 2
        r = half + (half**2 + alpha * R).sqrt()
        return self.centre + (y - self.centre) / (1 + beta / (alpha + r))

    def _alpha_beta(self) -> tuple[Tensor, Tensor]:
        alpha = self.log_alpha.exp()
        return alpha, softplus(self.bend) - alpha


def _root(
    f: Callable[[Tensor], Tensor], target: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Returns the a in [low, high] with f(a) = target, f increasing; differentiable."""
    with torch.no_grad():
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = f(middle) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    with torch.enable_grad():
        a = ((low + high) / 2).detach().requires_grad_()
        (slope,) = torch.autograd.grad(f(a).sum(), a)
    # a Newton step: it does not change the value, but gives the gradient of the root
    a = a.detach()
    return a - (f(a) - target) / slope
