"""Linear autoencoder with Gaussian latents: latent diffusion whose posterior is exact."""

import math

import torch
from torch import Tensor, nn

from genprior.core.linalg import per_image
from genprior.priors.base import LatentDenoiser


class LinearLatents(nn.Module, LatentDenoiser):
    """x = b + W z, z ~ N(m, diag(c)), with the pseudo-inverse of W as encoder.

    Arguments:
        shape: Shape (C, H, W) of the images.
        latent: Shape of the latents.
        dtype: Type of the tensors.
    """

    def __init__(
        self, shape: tuple[int, int, int], latent: tuple[int, ...],
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(2)
        pixels, count = math.prod(shape), math.prod(latent)
        W = torch.randn(pixels, count, generator=random, dtype=torch.float64)
        b = 0.5 + 0.05 * torch.randn(pixels, generator=random, dtype=torch.float64)
        m = 0.3 * torch.randn(count, generator=random, dtype=torch.float64)
        c = torch.linspace(1.6, 0.4, count, dtype=torch.float64)
        self.image, self.latent, self.channels = tuple(shape), tuple(latent), shape[0]
        self.W = nn.Parameter((0.25 * W / count**0.5).to(dtype))
        self.inverse = nn.Parameter(torch.linalg.pinv(self.W.detach().double()).to(dtype))
        self.b, self.m, self.c = (nn.Parameter(value.to(dtype)) for value in (b, m, c))

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return image_shape[0], *self.latent

    def encode(self, x: Tensor) -> Tensor:
        z = (x.flatten(1) - self.b.to(x)) @ self.inverse.to(x).T
        return z.unflatten(1, self.latent)

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        return (self.b.to(z) + z.flatten(1) @ self.W.to(z).T).reshape(image_shape)

    def denoise_latents(self, z: Tensor, s: float | Tensor) -> Tensor:
        s = per_image(s, z.flatten(1)[:, :, None, None]).flatten(1)
        m, c = self.m.to(z), self.c.to(z)
        return (m + c / (c + s**2) * (z.flatten(1) - m)).unflatten(1, self.latent)

    def posterior(self, y: Tensor, A: Tensor, noise_std: float) -> tuple[Tensor, Tensor]:
        """Returns mean (pixels,) and covariance of x given y = A x + noise_std n, y (m,)."""
        W, b, m, c = (value.detach().double() for value in (self.W, self.b, self.m, self.c))
        G = A @ W
        precision = torch.diag(1 / c) + G.T @ G / noise_std**2
        cov = torch.linalg.inv(precision)
        mean = cov @ (m / c + G.T @ (y - A @ b) / noise_std**2)
        return b + W @ mean, W @ cov @ W.T
