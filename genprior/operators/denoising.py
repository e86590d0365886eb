"""Denoising operator: A is the identity, y = x + sigma n."""

import torch
from torch import Tensor, nn

from genprior.core.linalg import Singular, per_image
from genprior.operators.base import Operator


class Denoising(Operator, nn.Module):
    """Identity operator, for denoising."""

    is_identity = True
    is_pixel_mask = True
    is_mask = True

    def __init__(self) -> None:
        super().__init__()

    def A(self, x: Tensor) -> Tensor:
        return x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return y

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        return torch.Size(measurement_shape)

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        rho = per_image(rho, x)
        return (y + rho * x) / (1 + rho)

    def keep_known(self, x: Tensor, y: Tensor) -> Tensor:
        return y

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        return v / (per_image(c, v) + per_image(sigma2, v))

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        def same(x: Tensor) -> Tensor:
            return x

        return Singular(torch.ones(1, 1, 1, 1).to(like), same, same, same)
