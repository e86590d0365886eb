"""Invertible layers of normalising flows: y = f(x) with log |det df/dx| per image.

    actnorm     y = exp(a) (x + b)                        log det = H W sum(a)
    mixing      y = P L (U + diag(s e^r)) x, per pixel    log det = H W sum(r)
    coupling    y_1 = x_1,  y_2 = e^{s(x_1)} x_2 + t(x_1) log det = sum(s)

References:
    Density Estimation Using Real NVP, Dinh, Sohl-Dickstein and Bengio, 2017 (coupling, masks).
    Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma and Dhariwal, 2018.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

# Inputs of the coupling networks are squashed beyond some standard deviations, so that outputs are
# bounded. Otherwise many couplings amplify inputs unlike the training data, mostly in the inverse.
INPUT_BOUND = 6.0


class Invertible(nn.Module, ABC):
    """Invertible layer with its log-determinant; images of a batch are independent."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y of the shape of x, (B, C, H, W), and log |det dy/dx|, shape (B,)."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Returns the x with f(x) = y."""


class ActNorm(Invertible):
    """Actnorm: scale and shift per channel, initialised to standardise the first batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.pending = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.pending:
            self._initialise(x)
        log_det = x[0, 0].numel() * self.log_scale.sum()
        return (x + self.shift) * self.log_scale.exp(), log_det.expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_scale).exp() - self.shift

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        several = x[:, 0].numel() > 1  # a single number has no standard deviation
        std, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True, correction=int(several))
        std = std if several else torch.ones_like(std)
        self.shift.copy_(-mean[0])
        self.log_scale.copy_(-std[0].clamp(min=1e-3).log())
        self.pending = False


class Mixing(Invertible):
    """Invertible 1x1 convolution in LU form, initialised as a random rotation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
        P, L, U = torch.linalg.lu(rotation)
        diagonal = U.diagonal()
        self.register_buffer("permutation", P)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(L.tril(-1))
        self.upper = nn.Parameter(U.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def factors(self) -> tuple[Tensor, Tensor]:
        """Returns L with a unit diagonal, and U with its diagonal."""
        eye = torch.eye(len(self.sign), dtype=self.lower.dtype, device=self.lower.device)
        diagonal = torch.diag(self.sign * self.log_diagonal.exp())
        return self.lower.tril(-1) + eye, self.upper.triu(1) + diagonal

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # In half precision the matrix would not match the determinant.
        with torch.autocast(x.device.type, enabled=False):
            L, U = self.factors()
            y = _mix(self.permutation @ L @ U, x)
        log_det = x[0, 0].numel() * self.log_diagonal.sum()
        return y, log_det.expand(len(x))

    def inverse(self, y: Tensor) -> Tensor:
        L, U = self.factors()
        half = torch.linalg.solve_triangular(L, self.permutation.mT, upper=False)
        return _mix(torch.linalg.solve_triangular(U, half, upper=True), y)


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    # faster than a 1x1 convolution, especially in the channels-last format
    with torch.autocast(x.device.type, enabled=False):
        return (x.permute(0, 2, 3, 1) @ matrix.mT).permute(0, 3, 1, 2)


class Coupling(Invertible):
    """Affine coupling: one half of the numbers scales and shifts the other half.

    Log-scales are in (-1, 1).

    Arguments:
        channels: Channels of x, even unless the halves are a checkerboard.
        width: Features of the network that computes scale and shift.
        halves: Which half is transformed: the "last" or "first" channels, or the "black" or
            "white" pixels of a checkerboard.
    """

    def __init__(
        self, channels: int, width: int, halves: Literal["first", "last", "black", "white"]
    ) -> None:
        super().__init__()
        self.halves = halves
        self.by_pixels = halves in ("black", "white")
        kept = channels if self.by_pixels else channels // 2
        moved = channels if self.by_pixels else channels - kept
        self.network = nn.Sequential(
            nn.Conv2d(kept, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 1), nn.SiLU(),
            zero_convolution(width, 2 * moved),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved, mask = self._split(x)
        log_scale, shift = self._log_scale_and_shift(kept, mask)
        moved = moved * log_scale.exp() + shift
        return self._join(kept, moved, mask), log_scale.flatten(1).sum(dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        kept, moved, mask = self._split(y)
        log_scale, shift = self._log_scale_and_shift(kept, mask)
        return self._join(kept, (moved - shift) * (-log_scale).exp(), mask)

    def _log_scale_and_shift(self, kept: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(squash(kept)).to(kept.dtype).chunk(2, dim=1)
        log_scale = torch.tanh(raw)
        return (log_scale, shift) if mask is None else (mask * log_scale, mask * shift)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if not self.by_pixels:
            first, last = x.chunk(2, dim=1)
            return (first, last, None) if self.halves == "last" else (last, first, None)
        i, j = (torch.arange(n, device=x.device) for n in x.shape[-2:])
        moved = (i[:, None] + j) % 2 == (self.halves == "black")
        mask = moved.to(x.dtype)
        return (1 - mask) * x, mask * x, mask

    def _join(self, kept: Tensor, moved: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            return kept + moved
        return torch.cat((kept, moved) if self.halves == "last" else (moved, kept), dim=1)


def squash(x: Tensor) -> Tensor:
    """Bounds x smoothly to (-6, 6); close to the identity for small x."""
    return x * torch.rsqrt(1 + (x / INPUT_BOUND) ** 2)


def bounded(x: Tensor, bound: float) -> Tensor:
    """Bounds x smoothly to (-bound, bound); close to the identity for small x."""
    return bound * torch.tanh(x / bound)


def zero_convolution(inside: int, outside: int) -> nn.Conv2d:
    """Returns a 3x3 convolution initialised to 0, so that a flow starts as a linear map."""
    layer = nn.Conv2d(inside, outside, 3, padding=1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def squeeze(x: Tensor) -> Tensor:
    """Moves blocks of 2 x 2 pixels to channels: (B, C, H, W) to (B, 4 C, H / 2, W / 2)."""
    return nn.functional.pixel_unshuffle(x, 2)


def unsqueeze(y: Tensor) -> Tensor:
    """Inverts `squeeze`."""
    return nn.functional.pixel_shuffle(y, 2)
