"""Gaussian prior by PCA: mean, leading eigenvectors and an isotropic remainder.

    x = m + U diag(lambda - r^2)^(1/2) w + r n,    (w, n) ~ N(0, I)

    Cov = U diag(lambda) U^T + r^2 (I - U U^T)

References:
    Probabilistic Principal Component Analysis, Tipping and Bishop, 1999.
    Finding Structure with Randomness, Halko, Martinsson and Tropp, 2011 (randomised SVD).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.linalg import per_image
from genprior.priors.arguments import check_sizes
from genprior.priors.base import Factor, Gaussian

OVERSAMPLING = 10
POWER_ITERATIONS = 4


class PCA(nn.Module, Gaussian):
    """Gaussian distribution of images of one size, by principal component analysis.

    Arguments:
        mean: Mean image, shape (C, H, W), in [0, 1].
        components: Orthonormal eigenvectors of the covariance, shape (k, C, H, W).
        variances: Their eigenvalues, shape (k,), at least the square of the floor.
        floor: Standard deviation r in all other directions, in units of [0, 1].

    Raises:
        ValueError: Shapes do not fit, or an eigenvalue is below the square of the floor.
    """

    def __init__(self, mean: Tensor, components: Tensor, variances: Tensor, floor: float) -> None:
        super().__init__()
        self.eval()  # a closed form has no training mode; solvers would copy it
        if components.shape[1:] != mean.shape or variances.shape != components.shape[:1]:
            raise ValueError(
                f"components must be (k, {', '.join(map(str, mean.shape))}) and variances (k,), "
                f"got {tuple(components.shape)} and {tuple(variances.shape)}"
            )
        known = not variances.is_meta  # without numbers only the shapes can be checked
        floor_fits = math.isfinite(floor) and floor >= 0
        if not floor_fits or (known and (variances < floor**2).any()):
            raise ValueError(
                f"floor must be >= 0 and its square at most the smallest variance, got {floor}"
            )
        self.floor = float(floor)
        self.register_buffer("mean_image", mean.detach())
        self.register_buffer("components", components.detach().flatten(1))
        self.register_buffer("variances", variances.detach())

    @classmethod
    def from_config(cls, shape: Sequence[int], components: int, floor: float) -> "PCA":
        """Returns a prior of the given shapes, to load tensors into."""
        check_sizes(shape=shape, components=components)
        zeros = torch.zeros(components, *shape)
        return cls(torch.zeros(*shape), zeros, torch.full((components,), floor**2), floor)

    @property
    def config(self) -> Mapping[str, Any]:
        """Arguments of `from_config`, JSON types."""
        shape, count = list(self.mean_image.shape), len(self.components)
        return {"shape": shape, "components": count, "floor": self.floor}

    @classmethod
    def from_images(cls, images: Tensor, components: int, generator: torch.Generator) -> "PCA":
        """Fits the prior to images by a randomised SVD.

        Arguments:
            images: Shape (N, C, H, W), in [0, 1].
            components: Number k of eigenvectors, in 1 ... min(N, C H W) - 1.
            generator: Random numbers of the SVD, on the CPU.

        Raises:
            ValueError: There are too few images for that many components.
        """
        count, dimension = len(images), images[0].numel()
        if not 1 <= components < min(count, dimension):
            raise ValueError(
                f"components must be in 1 ... {min(count, dimension) - 1} for {count} images of "
                f"{dimension} numbers, got {components}"
            )
        mean = images.mean(dim=0)
        rows = (images - mean).flatten(1)
        values, vectors = leading_singular_vectors(rows, components, generator)
        variances = values.square() / count
        rest = rows.square().sum() / count - variances.sum()
        floor2 = min(float(rest) / (dimension - components), float(variances.min()))
        vectors = vectors.reshape(components, *mean.shape)
        return cls(mean, vectors, variances, math.sqrt(max(floor2, 0.0)))

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.mean_image.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return tuple(self.mean_image.shape[1:])

    def mean(self, image_shape: torch.Size) -> Tensor:
        if tuple(image_shape[1:]) != tuple(self.mean_image.shape):
            remedy = "crop or resize the images" if image_shape[1] == self.channels else (
                f"convert them to {self.channels} channels, or train a prior with "
                f"{image_shape[1]}"
            )
            raise ValueError(
                f"this prior takes images of shape {tuple(self.mean_image.shape)} (channels, "
                f"height, width), got {tuple(image_shape[1:])}: {remedy}"
            )
        return self.mean_image[None]

    def factor(self, image_shape: torch.Size, like: Tensor) -> Factor:
        shape = self.mean(image_shape).shape[1:]
        U, excess = self.components.to(like), self._excess().to(like)
        tiny = torch.finfo(like.dtype).tiny
        return Factor(
            shape=(len(U),),
            apply=lambda w: ((w * excess.sqrt()) @ U).reshape(-1, *shape),
            adjoint=lambda v: (v.flatten(1) @ U.T) * excess.sqrt(),
            gram_inverse=lambda w, delta: w / (excess + per_image(delta, w)).clamp(min=tiny),
            floor=self.floor,
        )

    def cov(self, v: Tensor) -> Tensor:
        factor = self.factor(v.shape, v)
        return factor.apply(factor.adjoint(v)) + self.floor**2 * v

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        rest = self.mean(image_shape).numel() if self.floor else 0
        return (image_shape[0], len(self.components) + rest)

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        """Returns images of z = (w, n): coefficients of the eigenvectors, then white noise."""
        factor = self.factor(image_shape, z)
        w, n = z.split([len(self.components), z.shape[1] - len(self.components)], dim=1)
        x = self.mean(image_shape).to(z) + factor.apply(w)
        return x + self.floor * n.reshape(x.shape) if self.floor else x

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        sigma2 = per_image(sigma, x).square().flatten()
        return x - self.factor(x.shape, x).shrinkage(x - self.mean(x.shape).to(x), sigma2)

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns the log-density in nats, shape (B,).

        Raises:
            ValueError: The floor is 0, so that the covariance is singular.
        """
        if not self.floor:
            raise ValueError("this prior has no density: its floor is 0, give it a positive one")
        r = (x - self.mean(x.shape).to(x)).flatten(1)
        U, floor2 = self.components.to(x), self.floor**2
        w = r @ U.T
        rest = r - w @ U
        rest = rest - (rest @ U.T) @ U  # again: large variances leave rounding errors
        distance = w.square() @ (1 / (self._excess().to(x) + floor2))
        distance = distance + rest.square().sum(dim=1) / floor2
        count = r.shape[1]
        log_det = self.variances.log().sum().to(x) + (count - len(U)) * math.log(floor2)
        return -0.5 * (distance + log_det + count * math.log(2 * math.pi))

    def _excess(self) -> Tensor:
        """Returns the excess of each eigenvalue over the isotropic part."""
        return (self.variances - self.floor**2).clamp(min=0)


def leading_singular_vectors(
    rows: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns the largest singular values, decreasing, and their right singular vectors.

    Arguments:
        rows: Matrix, shape (N, d).
        count: Number of singular values.
        generator: Random numbers, on the CPU.

    Returns:
        Values (count,) and vectors (count, d).
    """
    width = min(count + OVERSAMPLING, *rows.shape)
    probe = torch.randn(rows.shape[1], width, generator=generator, dtype=rows.dtype).to(rows)
    basis = torch.linalg.qr(rows @ probe).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(rows @ torch.linalg.qr(rows.T @ basis).Q).Q
    values, vectors = torch.linalg.svd(basis.T @ rows, full_matrices=False)[1:]
    return values[:count], vectors[:count]
