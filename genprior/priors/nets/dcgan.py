"""Convolutional generator and critic of a DCGAN.

References:
    Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks,
        Radford, Metz and Chintala, 2016.

Differs from the authors' code:
    1. By default resolution doubles by nearest-neighbour upsampling and a convolution instead of
        a transposed convolution, which leaves checkerboards where its kernel overlaps unevenly
        (Odena et al., 2016); "transposed" is the paper's. It halves by 2 x 2 average pooling.
    2. Weights have torch's default initialisation, not N(0, 0.02^2).
    3. Without a size the first layer is a convolution of a latent map: images of any size.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

SLOPE = 0.2
MOMENTUM = 0.1


class BatchNorm(nn.Module):
    """Batch normalisation whose state consists of floats only, so that it can be averaged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(
            x, self.mean, self.variance, self.weight, self.bias, self.training, MOMENTUM
        )


class DCGenerator(nn.Module):
    """DCGAN generator, in layers: latents to images in [-1, 1].

    Arguments:
        channels: Image channels.
        latent: Dimension of the latent vector, or channels of the latent map.
        widths: Features per level, the finest first; each level doubles the resolution.
        size: Height and width of the images, multiples of 2^levels; None for a latent map.
        upsampling: "nearest" or "transposed", a 4 x 4 transposed convolution of stride 2.
    """

    def __init__(
        self, channels: int, latent: int, widths: Sequence[int], size: Sequence[int] | None,
        upsampling: Literal["nearest", "transposed"] = "nearest",
    ) -> None:
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.receptive_radius = (
            2 * self.multiple
        )  # one 3x3 convolution per level and two at the finest
        width = widths[-1]
        if size is None:
            first: list[nn.Module] = [nn.Conv2d(latent, width, 3, padding=1)]
        else:
            rows, columns = (n // self.multiple for n in size)
            project = nn.Linear(latent, width * rows * columns)
            first = [project, nn.Unflatten(1, (width, rows, columns))]
        self.layers = nn.ModuleList([nn.Sequential(*first, BatchNorm(width), nn.ReLU())])
        for outside in reversed(widths):
            doubled: list[nn.Module] = [nn.ConvTranspose2d(width, outside, 4, stride=2, padding=1)]
            if upsampling == "nearest":
                convolution = nn.Conv2d(width, outside, 3, padding=1)
                doubled = [nn.Upsample(scale_factor=2), convolution]
            self.layers.append(nn.Sequential(*doubled, BatchNorm(outside), nn.ReLU()))
            width = outside
        self.layers.append(nn.Sequential(nn.Conv2d(width, channels, 3, padding=1), nn.Tanh()))


class Critic(nn.Module):
    """DCGAN discriminator or critic: one number per image, from a convolutional network.

    Arguments:
        channels: Image channels.
        widths: Features per level; each halves the resolution.
        size: Height and width of the images, for a dense last layer; None for an average of
            the outputs over the image.
        normalise: Use batch normalisation in all levels but the first.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        size: Sequence[int] | None,
        normalise: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
        for level, width in enumerate(widths):
            layers += [nn.LeakyReLU(SLOPE), nn.AvgPool2d(2)]
            layers += [nn.Conv2d(widths[max(level - 1, 0)], width, 3, padding=1)]
            if normalise and level:
                layers.append(BatchNorm(width))
        layers.append(nn.LeakyReLU(SLOPE))
        if size is None:
            self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))
        else:
            rows, columns = (n // 2 ** len(widths) for n in size)
            dense = nn.Linear(widths[-1] * rows * columns, 1)
            self.layers = nn.Sequential(*layers, nn.Flatten(), dense)

    def forward(self, u: Tensor) -> Tensor:
        """Returns the output for images u in [-1, 1], (B, C, H, W); shape (B,)."""
        return self.layers(u).flatten(1).mean(dim=1)
