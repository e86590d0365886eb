"""U-Net generator and patch critic of pix2pix.

References:
    Image-to-Image Translation with Conditional Adversarial Networks, Isola, Zhu, Zhou and Efros,
        2017.
    U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger et al., 2015.

Differs from the authors' code:
    1. The U-Net has a level at full resolution and returns a correction of its input, so it need
       not learn to copy what is known.
    2. It has 4 levels by default, not 8: a multiple of 8 pixels is enough, not of 256.
    3. Weights have torch's default initialisation, not N(0, 0.02^2).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genprior.priors.nets.dcgan import SLOPE, BatchNorm


class UNetGenerator(nn.Module):
    """U-Net with concatenated skip connections: images to images of the same size.

    Arguments:
        channels: Image channels.
        widths: Features per level, the finest first; each level but the first halves the
            resolution.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        self.head = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in zip(widths[:-1], widths[1:], strict=True):
            halved = nn.Conv2d(fine, coarse, 4, stride=2, padding=1)
            self.down.append(nn.Sequential(nn.LeakyReLU(SLOPE), halved, BatchNorm(coarse)))
            given = coarse if len(self.down) == len(widths) - 1 else 2 * coarse  # with its skip
            doubled = nn.ConvTranspose2d(given, fine, 4, stride=2, padding=1)
            self.up.append(nn.Sequential(nn.ReLU(), doubled, BatchNorm(fine)))
        given = widths[0] if len(widths) == 1 else 2 * widths[0]
        self.tail = nn.Sequential(nn.ReLU(), nn.Conv2d(given, channels, 3, padding=1))
        nn.init.zeros_(self.tail[1].weight)
        nn.init.zeros_(self.tail[1].bias)

    def forward(self, u: Tensor) -> Tensor:
        """Returns images for input images u, (B, C, H, W); H and W multiples of `multiple`."""
        h = self.head(u)
        skips = []
        for down in self.down:
            skips.append(h)
            h = down(h)
        for up, skip in zip(reversed(self.up), reversed(skips), strict=True):
            h = torch.cat((up(h), skip), dim=1)
        return u + self.tail(h)


class PatchCritic(nn.Module):
    """Discriminator of patches: one logit for each patch of an image, given an input image.

    Arguments:
        channels: Channels of an image, and of its input image.
        widths: Features per level; each halves the resolution. A logit depends on a patch of
            8, 18, 38, 78 ... pixels for 1, 2, 3, 4 ... levels.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        given = 2 * channels
        for level, width in enumerate(widths):
            layers.append(nn.Conv2d(given, width, 4, stride=2, padding=1))
            layers += [BatchNorm(width)] if level else []
            layers.append(nn.LeakyReLU(SLOPE))
            given = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(given, 1, 3, padding=1))

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Returns the logits of images v given input images u, (B, 1, h, w)."""
        return self.layers(torch.cat((u, v), dim=1))
