"""Noise models: laws of the noise n in y = A x + n.

A Gaussian model has a covariance Sigma = U diag(s) U^T, and gives functions of it:

    Sigma v,    Sigma^{-1/2} v,    argmin_u (u - y)^T Sigma^{-1} (u - y) + |u - x|^2 / tau^2
                                       = y + Sigma (Sigma + tau^2 I)^{-1} (x - y)

U is the identity for a map of noise levels, and the Fourier transform with an orthonormal basis
of the channels at each frequency for correlated noise. The variance of signal-dependent noise is
a x + b; a variance-stabilising transform makes it nearly white.

References:
    The Transformation of Poisson, Binomial and Negative-Binomial Data, Anscombe, 1948.
    Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data, Foi et
        al., 2008 (variance a x + b).
    Optimal Inversion of the Generalized Anscombe Transformation for Poisson-Gaussian Noise,
        Mäkitalo and Foi, 2013.
    Variance Stabilization for Noisy+Estimate Combination in Iterative Poisson Denoising, Azzari
        and Foi, 2016.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fft import fft2, ifft2

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.core.noise_text import parse_noise
from genprior.core.tensors import numbers

# Smallest eigenvalue of a covariance, relative to the largest.
FLOOR = 1e-6


class GaussianNoise(ABC):
    """Gaussian noise of mean 0 whose covariance is the same for all images x.

    `is_white` is true if it is independent, with one level per image.
    `is_independent` is true if the noise of different pixels and channels is independent.
    """

    is_white = False
    is_independent = True

    @abstractmethod
    def apply(self, function: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        """Returns U f(s) U^T v.

        Arguments:
            function: Maps the eigenvalues s of the covariance, (B or 1, ...), to numbers of the
                same shape.
            v: Measurements, shape (B, C, H, W).

        Raises:
            SettingError: The noise does not fit measurements of this shape.
        """

    @abstractmethod
    def variance(self, like: Tensor) -> Tensor:
        """Returns the mean variance per image, shape (B,), for measurements of that shape."""

    @abstractmethod
    def select(self, images: Sequence[int]) -> "GaussianNoise":
        """Returns the noise of the given images of the batch, in that order."""

    def level(self, like: Tensor) -> Tensor:
        """Returns the root mean square of the noise per image, shape (B,)."""
        return self.variance(like).sqrt()

    def covariance(self, v: Tensor) -> Tensor:
        """Returns Sigma v."""
        return self.apply(lambda s: s, v)

    def whiten(self, v: Tensor) -> Tensor:
        """Returns Sigma^{-1/2} v; of the noise itself, white noise of level 1."""
        return self.apply(torch.rsqrt, v)

    def colour(self, v: Tensor) -> Tensor:
        """Returns Sigma^{1/2} v; of white noise of level 1, a sample of this noise."""
        return self.apply(torch.sqrt, v)

    def score(self, residual: Tensor) -> Tensor:
        """Returns -Sigma^{-1} r, the gradient of the log-likelihood of r = y - A x in y."""
        return -self.apply(torch.reciprocal, residual)

    def prox(self, x: Tensor, y: Tensor, tau2: float | Tensor) -> Tensor:
        """Returns argmin_u (u - y)^T Sigma^{-1} (u - y) + |u - x|^2 / tau2.

        Arguments:
            x: Images, shape (B, C, H, W).
            y: Noisy images, shape (B, C, H, W).
            tau2: Variance around x, > 0; a number or shape (B,).
        """
        around = per_image(tau2, x)

        def share(s: Tensor) -> Tensor:
            return s / (s + around.reshape(-1, *[1] * (s.ndim - 1)))

        return y + self.apply(share, x - y)


class WhiteNoise(GaussianNoise):
    """White Gaussian noise.

    Arguments:
        std: Noise level in image units, > 0; a number or one per image.

    Raises:
        SettingError: A level is not > 0 and finite.
    """

    is_white = True

    def __init__(self, std: float | Sequence[float] | Tensor) -> None:
        self.std = numbers(std, "std").float().flatten()
        _check_positive(self.std, "std")

    def apply(self, function: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        return function(self.variance(v).reshape(-1, *[1] * (v.ndim - 1))) * v

    def variance(self, like: Tensor) -> Tensor:
        return per_image(self.std, like).flatten() ** 2

    def select(self, images: Sequence[int]) -> "WhiteNoise":
        return WhiteNoise(_rows(self.std, images))


class IndependentNoise(GaussianNoise):
    """Independent Gaussian noise with its own level at every pixel.

    Arguments:
        std: Map of noise levels in image units, > 0: shape (B or 1, C or 1, H, W), or (H, W).

    Raises:
        SettingError: The shape is not one of these, or a level is not > 0 and finite.
    """

    def __init__(self, std: Any) -> None:
        std = numbers(std, "std").float()
        if std.ndim not in (2, 4):
            raise SettingError(
                f"a map of noise levels must have shape (H, W) or (B or 1, C or 1, H, W), got "
                f"{tuple(std.shape)}"
            )
        _check_positive(std, "std")
        self.std = std if std.ndim == 4 else std[None, None]

    def apply(self, function: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        return function(self._map(v) ** 2) * v

    def variance(self, like: Tensor) -> Tensor:
        return self._map(like).square().expand(like.shape).flatten(1).mean(dim=1)

    def select(self, images: Sequence[int]) -> "IndependentNoise":
        return IndependentNoise(_rows(self.std, images))

    def _map(self, v: Tensor) -> Tensor:
        fits = v.ndim == 4 and all(
            own in (1, n) for own, n in zip(self.std.shape[:2], v.shape[:2], strict=True)
        )
        if not fits or v.shape[-2:] != self.std.shape[-2:]:
            raise SettingError(
                f"the map of noise levels has shape {tuple(self.std.shape)}, which does not fit "
                f"measurements of shape {tuple(v.shape)}"
            )
        return self.std.to(v)


class CorrelatedNoise(GaussianNoise):
    """Stationary Gaussian noise, correlated between neighbours and channels.

    The image counts as periodic: noise at the left border is correlated with that at the right.

    Arguments:
        autocovariance: E[n_c(p) n_d(p + t)] at lags t = -r ... r, shape (C, C, 2 r + 1, 2 r + 1)
            or one more axis in front for one per image; (2 r + 1, 2 r + 1) for channels that are
            independent and alike.
        floor: Standard deviation of an additional white part, in image units, >= 0. Eigenvalues
            of the covariance below 1e-6 of the largest are raised to this share.

    Raises:
        SettingError: The shape is not one of these, the variance is not > 0, or the floor is
            negative.
    """

    is_independent = False

    def __init__(self, autocovariance: Any, floor: float = 0.0) -> None:
        c = numbers(autocovariance, "autocovariance")
        c = c if c.is_floating_point() else c.float()
        self.alike = c.ndim == 2
        if self.alike:
            c = c[None, None]
        if c.ndim == 4:
            c = c[None]
        sides = c.shape[-2:]
        if c.ndim != 5 or c.shape[1] != c.shape[2] or sides[0] % 2 != 1 or sides[1] % 2 != 1:
            raise SettingError(
                f"an autocovariance must have shape (C, C, h, w) with odd h and w, one more axis "
                f"in front for several images, or (h, w); got {tuple(c.shape)}"
            )
        if not 0 <= floor < math.inf:
            raise SettingError(f"floor must be >= 0 and finite, got {floor}")
        self.autocovariance, self.floor = c, floor
        if not c.isfinite().all() or (self._variances(c) <= 0).any():
            raise SettingError("an autocovariance must be finite, with a variance > 0 at lag 0")
        self._known: dict[tuple, tuple[Tensor, Tensor]] = {}

    @classmethod
    def from_kernel(cls, kernel: Any, std: float, floor: float = 0.0) -> "CorrelatedNoise":
        """Returns the noise of white noise filtered by a kernel, scaled to a level.

        Arguments:
            kernel: Shape (h, w); its scale does not matter.
            std: Noise level after the filter, in image units, > 0.
            floor: See the class.

        >>> noise = CorrelatedNoise.from_kernel(torch.ones(3, 3), 0.05)
        >>> noise.level(torch.zeros(1, 3, 16, 16)).item()
        0.05000000...
        """
        k = numbers(kernel, "kernel").double()
        if k.ndim != 2 or not k.any():
            raise SettingError(f"a kernel must have shape (h, w), not all 0; got {tuple(k.shape)}")
        _check_positive(torch.as_tensor(float(std)), "std")
        h, w = k.shape
        c = torch.nn.functional.conv2d(k[None, None], k[None, None], padding=(h - 1, w - 1))[0, 0]
        return cls(c * std**2 / k.square().sum(), floor)

    def apply(self, function: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        s, basis = self.spectrum(v)
        f = fft2(v).permute(0, 2, 3, 1)[..., None]
        f = basis @ (function(s)[..., None].to(f) * (basis.mH @ f))
        return ifft2(f[..., 0].permute(0, 3, 1, 2)).real.to(v)

    def variance(self, like: Tensor) -> Tensor:
        mean = self._variances(self.autocovariance).mean(dim=1) + self.floor**2
        return per_image(mean, like).flatten()

    def select(self, images: Sequence[int]) -> "CorrelatedNoise":
        c = _rows(self.autocovariance, images)
        return CorrelatedNoise(c[0, 0, 0] if self.alike else c, self.floor)

    def spectrum(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the eigenvalues of the covariance by frequency, and the bases of the channels.

        Returns:
            Shapes (B or 1, H, W, C) and (B or 1, H, W, C, C), in the layout of `fft2`.
        """
        key = (*like.shape[1:], like.dtype, like.device)
        if key not in self._known:
            self._known = {key: self._spectrum(like)}
        return self._known[key]

    def _spectrum(self, like: Tensor) -> tuple[Tensor, Tensor]:
        c, (rows, columns) = self.autocovariance, like.shape[-2:]
        fits = like.ndim == 4 and c.shape[0] in (1, len(like))
        if not fits or not (self.alike or c.shape[1] == like.shape[1]):
            raise SettingError(
                f"the autocovariance is that of {c.shape[0]} image(s) with {c.shape[1]} "
                f"channel(s), which does not fit measurements of shape {tuple(like.shape)}"
            )
        c = c.to(like.device, torch.float64 if like.device.type != "mps" else torch.float32)
        h, w = c.shape[-2:]
        wrapped = c.new_zeros(*c.shape[:3], rows, columns)
        row = (torch.arange(h, device=c.device) - h // 2) % rows
        column = (torch.arange(w, device=c.device) - w // 2) % columns
        where = (row[:, None] * columns + column).flatten()
        wrapped.flatten(-2).index_add_(-1, where, c.flatten(-2))
        # E[n_c(p) n_d(p + t)] has the spectrum E[conj(N_c) N_d]: transposed for N N^H
        density = fft2(wrapped).permute(0, 3, 4, 2, 1)
        density = (density + density.mH) / 2
        s, basis = torch.linalg.eigh(density)
        s = s.clamp(min=0) + self.floor**2
        s = s.maximum(FLOOR * s.amax(dim=(1, 2, 3), keepdim=True))
        if self.alike:
            s = s.expand(*s.shape[:3], like.shape[1])
            basis = torch.eye(like.shape[1], dtype=basis.dtype, device=c.device).expand(
                *s.shape, like.shape[1]
            )
        complex_type = torch.complex128 if like.dtype == torch.float64 else torch.complex64
        return s.to(like.dtype), basis.to(complex_type)

    @staticmethod
    def _variances(c: Tensor) -> Tensor:
        h, w = c.shape[-2:]
        return c[..., h // 2, w // 2].diagonal(dim1=1, dim2=2)


class SignalDependentNoise:
    """Poisson-Gaussian noise: independent, with the variance a x + b at a pixel of value x.

    Arguments:
        gain: a, in image units, > 0.
        offset: b, the variance of the Gaussian part, >= 0.

    Raises:
        SettingError: The gain or the offset is out of its range.
    """

    def __init__(self, gain: float, offset: float = 0.0) -> None:
        if not 0 < gain < math.inf:
            raise SettingError(f"gain must be > 0 and finite, got {gain}")
        if not 0 <= offset < math.inf:
            raise SettingError(f"offset must be >= 0 and finite, got {offset}")
        self.gain, self.offset = gain, offset

    def at(self, x: Tensor) -> IndependentNoise:
        """Returns the noise of images with values x, (B, C, H, W)."""
        least = self.offset + self.gain * 1e-3
        return IndependentNoise((self.gain * x + self.offset).clamp(min=least).sqrt())

    def add(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Returns measurements of values x with this noise; negative values count as 0.

        Arguments:
            x: Values without noise, any shape.
            generator: Random stream, on the CPU.
        """
        counts = torch.poisson(x.detach().cpu().clamp(min=0) / self.gain, generator=generator)
        y = self.gain * counts
        if self.offset:
            y = y + self.offset**0.5 * torch.randn(y.shape, generator=generator, dtype=y.dtype)
        return y.to(x)

    def scaled(self, share: float) -> "SignalDependentNoise":
        """Returns the law of share y + (1 - share) x for noisy images y of clean ones x."""
        return SignalDependentNoise(share**2 * self.gain, share**2 * self.offset)

    def stabilise(self, y: Tensor) -> Tensor:
        """Returns the generalised Anscombe transform of y: noise of level near 1."""
        return 2 / self.gain * (
            self.gain * y + 3 / 8 * self.gain**2 + self.offset
        ).clamp(min=0).sqrt()

    def unstabilise(self, z: Tensor) -> Tensor:
        """Returns x whose stabilised measurement has the mean z; the unbiased inverse.

        A closed form of Mäkitalo and Foi, accurate to 1 % of the noise variance.
        """
        d = z.clamp(min=2 * math.sqrt(3 / 8))
        root = math.sqrt(3 / 2)
        counts = d**2 / 4 + root / 4 / d - 11 / 8 / d**2 + 5 / 8 * root / d**3 - 1 / 8
        return (self.gain * counts - self.offset / self.gain).clamp(min=0)


class PoissonNoise(SignalDependentNoise):
    """Poisson noise: y = N / peak with N ~ Poisson(peak x).

    Arguments:
        peak: Mean count of a white pixel, > 0.

    Raises:
        SettingError: The peak is not > 0 and finite.
    """

    def __init__(self, peak: float) -> None:
        if not 0 < peak < math.inf:
            raise SettingError(f"peak must be > 0 and finite, got {peak}")
        super().__init__(1 / peak)
        self.peak = peak

    def score(self, expected: Tensor, y: Tensor) -> Tensor:
        """Returns the gradient of log p(y | A x) in A x = `expected` > 0."""
        return self.peak * (y / expected - 1)


def noise_law(text: str) -> GaussianNoise | SignalDependentNoise:
    """Returns a law that is given as text, see `core.noise_text`.

    Raises:
        SettingError: The text is no law, or a number is out of its range.

    >>> noise_law("poisson=30").gain
    0.0333...
    """
    kind, numbers = parse_noise(text)
    if kind == "poisson":
        return PoissonNoise(*numbers)
    if kind == "signal":
        return SignalDependentNoise(*numbers)
    level, width = numbers
    return CorrelatedNoise.from_kernel(torch.ones(int(width), int(width)), level)


def _check_positive(values: Tensor, name: str) -> None:
    if not (values.isfinite().all() and (values > 0).all()):
        raise SettingError(f"{name} of noise must be > 0 and finite, in units of [0, 1]")


def _rows(values: Tensor, images: Sequence[int]) -> Tensor:
    return values if len(values) == 1 else values[list(images)]
