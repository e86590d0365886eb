"""Gaussian priors with an exact denoiser, and deterministic noise for tests.

Written independently of the package's own Gaussian algebra, so that one can check the other.
"""

import math

import torch
from torch import Tensor, nn
from torch.fft import irfft2, rfft2

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.priors.base import Decoder, Denoiser, Density


class Dense(nn.Module, Denoiser, Decoder, Density):
    """x ~ N(1/2, S) for images of any shape: smooth fields with correlated channels.

    Arguments:
        std: Standard deviation of a pixel.
        length: Correlation length in pixels; 0 makes all pixels independent.
        dtype: Type of the mean, a parameter; results have the type of the images.
    """

    symmetries = range(8)

    def __init__(
        self, std: float = 0.25, length: float = 2.0, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        self.std, self.length = std, length
        self.mean = nn.Parameter(torch.tensor(0.5, dtype=dtype))
        self.calls: list[torch.Size] = []
        self.products = 0
        self._factors: dict[tuple, tuple[Tensor, Tensor]] = {}

    def cov(self, shape: tuple[int, int, int]) -> Tensor:
        """Returns S for images of shape (C, H, W), float64."""
        c, i, j = torch.cartesian_prod(*(torch.arange(n).double() for n in shape)).T
        if self.length == 0:
            return self.std**2 * torch.eye(len(c), dtype=torch.float64)
        apart = torch.hypot(i[:, None] - i, j[:, None] - j)
        return self.std**2 * torch.exp(-apart / self.length) * (0.6 + 0.4 * (c[:, None] == c))

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.calls.append(x.shape)
        values, vectors = self._spectrum(x.shape[1:], x)
        gain = values / (values + per_image(sigma, x)[:, :, 0, 0] ** 2)
        centred = (x - self.mean).flatten(1)
        moved = ((centred @ vectors * gain) @ vectors.mT).reshape(x.shape)
        return self._counted(self.mean + moved)

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return image_shape[0], image_shape[1:].numel()

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        self.calls.append(image_shape)
        values, vectors = self._spectrum(image_shape[1:], z)
        return self._counted(self.mean + ((z * values.sqrt()) @ vectors.mT).reshape(image_shape))

    def log_prob(self, x: Tensor) -> Tensor:
        self.calls.append(x.shape)
        values, vectors = self._spectrum(x.shape[1:], x)
        z = ((x - self.mean).flatten(1) @ vectors) / values.sqrt()
        return self._counted(-0.5 * (z.square() + values.log() + math.log(2 * math.pi)).sum(dim=1))

    def draw(self, count: int, shape: tuple[int, int, int]) -> Tensor:
        """Draws samples, shape (count, C, H, W)."""
        values, vectors = self._spectrum(shape, self.mean)
        z = normals(1, count, len(values), seed=5)[0].to(self.mean)
        return (self.mean + ((z * values.sqrt()) @ vectors.mT).reshape(count, *shape)).detach()

    def _counted(self, answer: Tensor) -> Tensor:
        """Returns the answer with a hook that counts its Jacobian products, one per image."""
        def count(v: Tensor) -> None:
            self.products += len(v)

        if answer.requires_grad:
            answer.register_hook(count)
        return answer

    def _spectrum(self, shape: tuple[int, int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        key = (*shape, like.dtype)
        if key not in self._factors:
            values, vectors = torch.linalg.eigh(self.cov(shape))
            self._factors[key] = values.clamp(min=0).to(like.dtype), vectors.to(like.dtype)
        return self._factors[key]


class Seeing(Dense):
    """The same Gaussian prior as an inpainter: single pixels may be unknown."""

    is_inpainter = True

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        self.calls.append(x.shape)
        answers = []
        levels = per_image(sigma, x).flatten()
        for image, level, hole in zip(x, levels, unknown.expand_as(x), strict=True):
            seen = (hole.flatten() == 0).nonzero().flatten()
            S = self.cov(image.shape)
            noisy = S[seen][:, seen] + level**2 * torch.eye(len(seen), dtype=S.dtype)
            weights = torch.linalg.solve(noisy, image.flatten()[seen] - 0.5)
            answers.append((0.5 + S[:, seen] @ weights).reshape(image.shape))
        return torch.stack(answers)


class Stationary(Denoiser):
    """x ~ N(mean, S) on a torus, grey, given by its spectrum: the eigenvalues of S, (H, W)."""

    def __init__(self, spectrum: Tensor, mean: float = 0.5) -> None:
        self.spectrum, self.mean = spectrum, mean

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        half = self.spectrum[:, : x.shape[-1] // 2 + 1]  # the field is real: S(k) = S(-k)
        gain = half / (half + per_image(sigma, x) ** 2)
        return self.mean + irfft2(gain * rfft2(x - self.mean), s=x.shape[-2:])


class Crooked(Denoiser):
    """A smooth non-linear map whose Jacobian is neither symmetric nor local; no true denoiser."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        n = x[0].numel()
        weight = normals(1, n, n, seed=3)[0] / n**0.5
        scaled = (x - 0.5).flatten(1) / (0.25 + per_image(sigma, x)[:, 0, 0] ** 2).sqrt()
        return 0.5 + 0.4 * torch.tanh(scaled @ weight.mT).reshape(x.shape)


class Stream(Noise):
    """One random stream for all samples: fast for thousands of samples."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)


class Silence(Noise):
    """Zero noise: an affine solver then returns its mean."""

    def __init__(self) -> None:
        self.drawn = 0

    def normal(self, like: Tensor) -> Tensor:
        self.drawn += 1
        return torch.zeros_like(like)


class Replay(Noise):
    """Noise that replays given tensors in order."""

    def __init__(self, draws: list[Tensor]) -> None:
        self.draws = iter(draws)

    def normal(self, like: Tensor) -> Tensor:
        noise = next(self.draws)
        assert noise.shape == like.shape
        return noise


class Impulses(Noise):
    """Unit impulses: sample i receives a single 1, at pixel 0 of its draw number i."""

    def __init__(self) -> None:
        self.drawn = 0

    def normal(self, like: Tensor) -> Tensor:
        noise = torch.zeros(like.shape, dtype=like.dtype)
        if self.drawn < len(noise):
            noise[self.drawn, ..., 0, 0] = 1
        self.drawn += 1
        return noise


def normals(count: int, *shape: int, seed: int = 0) -> list[Tensor]:
    """Returns white noise in float64."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]
