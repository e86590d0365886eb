"""Building blocks of networks: residual blocks and noise embedding."""

import math

import torch
from torch import Tensor, nn


def noise_embedding(c_noise: Tensor, width: int) -> Tensor:
    """Returns Fourier features of a scalar noise coordinate.

    Arguments:
        c_noise: Noise coordinate per image, shape (B,), of order 1 (EDM: ln(sigma) / 4).
        width: Number of features, even.

    Returns:
        Features in [-1, 1], shape (B, width).
    """
    octaves = torch.linspace(-2.0, 6.0, width // 2, dtype=c_noise.dtype, device=c_noise.device)
    phase = c_noise[:, None] * torch.exp2(octaves) * math.pi / 4
    return torch.cat((phase.cos(), phase.sin()), dim=1)


class ResBlock(nn.Module):
    """Residual block of two 3x3 convolutions, modulated by the noise level.

    h = conv2(silu((1 + scale) * conv1(silu(x)) + shift)),  out = x + h

    There is no normalisation layer: with statistics over the image every pixel would depend on
    the image size, and a crop would be denoised differently from the whole image.

    Arguments:
        channels: Number of channels.
        embedding: Width of the conditioning vector.
    """

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(nn.functional.silu(x))
        h = torch.addcmul(h + shift, h, scale)
        return x + self.conv2(nn.functional.silu(h))


class Residual(nn.Module):
    """Residual block x + conv2(silu(conv1(silu(x)))) of two 3x3 convolutions.

    It is initialised as the identity.

    Arguments:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(nn.functional.silu(x))
        return x + self.conv2(nn.functional.silu(h))
