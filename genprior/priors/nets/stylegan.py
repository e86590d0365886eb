"""StyleGAN generator: a mapping network, modulated convolutions, noise inputs.

    w = f(z),   h <- lrelu(d (C * (s h)) + b + strength n),   s = affine(w),
    d = (sum C^2 s^2)^-1/2 per output channel

References:
    A Style-Based Generator Architecture for Generative Adversarial Networks, Karras, Laine and
        Aila, 2019.
    Analyzing and Improving the Image Quality of StyleGAN, Karras et al., 2020 (modulation).

Differs from the authors' code:
    1. The noise inputs are latents like the style, so that the image is a function of the latents.
    2. Bilinear upsampling without a further filter.
    3. The mapping has 4 layers; the authors' has 8. A layer to RGB uses the style of the preceding
        convolution; the authors' uses that of the next.
    4. z is not scaled to a fixed length: a search starts at z = 0, and shorter z are more typical.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

SLOPE = 0.2
MAPPING_LAYERS = 4


class StyleGenerator(nn.Module):
    """StyleGAN synthesis network and mapping: styles and noise to images in about [-1, 1].

    Arguments:
        channels: Image channels.
        latent: Dimension of z and of each style w.
        widths: Features per level, the finest first.
        size: Height and width of the images, multiples of 2^(levels - 1).
    """

    def __init__(
        self, channels: int, latent: int, widths: Sequence[int], size: Sequence[int]
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)
        rows, columns = (n // self.multiple for n in size)
        mapping: list[nn.Module] = []
        for _ in range(MAPPING_LAYERS):
            linear = nn.Linear(latent, latent)
            nn.init.kaiming_normal_(linear.weight, a=SLOPE)  # w varies as much as z
            nn.init.zeros_(linear.bias)
            mapping += [linear, nn.LeakyReLU(SLOPE)]
        self.mapping = nn.Sequential(*mapping)
        self.start = nn.Parameter(torch.randn(widths[-1], rows, columns))
        self.layers, self.outputs = nn.ModuleList(), nn.ModuleList()
        self.noise_sizes: list[tuple[int, int]] = []
        width = widths[-1]
        for level, outside in enumerate(reversed(widths)):
            for _ in range(2 if level else 1):
                self.layers.append(StyleLayer(width, outside, latent))
                self.noise_sizes.append((rows << level, columns << level))
                width = outside
            self.outputs.append(StyleLayer(width, channels, latent, kernel=1, output=True))

    @property
    def noise(self) -> int:
        """Total dimension of all noise inputs."""
        return sum(map(math.prod, self.noise_sizes))

    def map(self, z: Tensor) -> Tensor:
        """Maps latents z to styles w, both (B, latent)."""
        return self.mapping(z)

    def forward(self, w: Tensor, noise: Tensor) -> Tensor:
        """Returns images.

        Arguments:
            w: A style for each layer, shape (B, layers, latent).
            noise: All noise inputs, flattened, shape (B, `self.noise`).
        """
        maps = noise.split([math.prod(size) for size in self.noise_sizes], dim=1)
        h, u, layer = self.start.to(w).expand(len(w), -1, -1, -1), None, 0
        for level, output in enumerate(self.outputs):
            if level:
                h, u = _upsample(h), _upsample(u)
            for _ in range(2 if level else 1):
                n = maps[layer].reshape(-1, 1, *self.noise_sizes[layer])
                h = self.layers[layer](h, w[:, layer], n)
                layer += 1
            rgb = output(h, w[:, layer - 1])
            u = rgb if u is None else u + rgb
        return u


class StyleLayer(nn.Module):
    """Modulated convolution: inputs scaled by a style, outputs normalised by the weights."""

    def __init__(
        self, inside: int, outside: int, latent: int, kernel: int = 3, output: bool = False
    ) -> None:
        super().__init__()
        self.output, self.pad = output, kernel // 2
        self.affine = nn.Linear(latent, inside)
        nn.init.normal_(self.affine.weight, std=latent**-0.5)
        nn.init.ones_(self.affine.bias)
        scale = (inside * kernel**2) ** -0.5
        self.weight = nn.Parameter(scale * torch.randn(outside, inside, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outside, 1, 1))
        self.strength = None if output else nn.Parameter(torch.zeros(()))

    def forward(self, h: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """Returns features (B, outside, H, W) of h with styles w (B, latent)."""
        s = self.affine(w)
        y = nn.functional.conv2d(h * s[:, :, None, None], self.weight, padding=self.pad)
        if self.output:
            return y + self.bias
        energy = s.square() @ self.weight.square().sum(dim=(2, 3)).mT
        y = y * (energy + 1e-8).rsqrt()[:, :, None, None]
        return nn.functional.leaky_relu(y + self.bias + self.strength * noise, SLOPE)


def _upsample(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
