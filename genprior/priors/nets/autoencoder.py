"""Encoder-decoder pairs of autoencoders, dense and convolutional.

Encoders map images in [-1, 1] to two numbers per latent; decoders map latents to images.
"""

from collections.abc import Sequence

import torch
from torch import nn

from genprior.priors.nets.blocks import Residual


class DenseCoder(nn.Module):
    """Fully connected encoder and decoder: a latent vector for images of one size.

    Arguments:
        shape: Channels, height and width of the images.
        latent: Dimension of the latent vector.
        widths: Features of the hidden layers of the encoder; the decoder has them reversed.
    """

    def __init__(self, shape: Sequence[int], latent: int, widths: Sequence[int]) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        self.encode = nn.Sequential(nn.Flatten(), *_layers([size, *widths, 2 * latent]))
        decoder = _layers([latent, *reversed(widths), size])
        self.decode = nn.Sequential(*decoder, nn.Unflatten(1, tuple(shape)))


class ConvolutionalCoder(nn.Module):
    """Convolutional encoder and decoder: a latent map (any size) or a vector (one size).

    Arguments:
        channels: Image channels.
        latent: Channels of the latent map, or dimension of the latent vector.
        widths: Features per level; each level but the first halves the resolution.
        blocks: Residual blocks per level.
        size: Height and width of the images for a latent vector, multiples of `multiple`; None
            for a map.

    Attributes:
        multiple: Height and width in pixels of a site of the latent map.
        receptive_radius: Receptive field: maximum distance in pixels between a site and an
            image pixel that changes the site in `encode`, or is changed by it in `decode`.
    """

    def __init__(
        self,
        channels: int,
        latent: int,
        widths: Sequence[int],
        blocks: int,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        self.receptive_radius = 1 + self.multiple + 2 * blocks * (2 * self.multiple - 1)
        down = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        up = [nn.SiLU(), nn.Conv2d(widths[0], channels, 3, padding=1)]
        for level, width in enumerate(widths):
            if level:
                down.append(nn.Conv2d(widths[level - 1], width, 2, stride=2))
                up.insert(0, nn.ConvTranspose2d(width, widths[level - 1], 2, stride=2))
            down += [Residual(width) for _ in range(blocks)]
            up = [*(Residual(width) for _ in range(blocks)), *up]
        down.append(nn.SiLU())
        if size is None:
            down.append(nn.Conv2d(widths[-1], 2 * latent, 3, padding=1))
            up.insert(0, nn.Conv2d(latent, widths[-1], 3, padding=1))
        else:
            site = torch.Size((widths[-1], *(n // self.multiple for n in size)))
            down += [nn.Flatten(), nn.Linear(site.numel(), 2 * latent)]
            up = [nn.Linear(latent, site.numel()), nn.Unflatten(1, tuple(site)), *up]
        self.encode = nn.Sequential(*down)
        self.decode = nn.Sequential(*up)


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return layers[:-1]
