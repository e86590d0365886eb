"""Fully convolutional U-Net (UNet) conditioned on the noise level.

References:
    U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger et al., 2015.
    Denoising Diffusion Probabilistic Models, Ho et al., 2020.
    Plug-and-Play Image Restoration with Deep Denoiser Prior, Zhang et al., 2021 (DRUNet).

Differs from the authors' code:
    1. No normalisation and no attention (as in DRUNet), so that the network does not depend on
        the image size.
    2. Skip connections are added, not concatenated (as in DRUNet): half the cost at full size.
    3. The noise level modulates every block; DRUNet has a map of it as an input. An optional
        input map marks unknown pixels.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from genprior.priors.nets.blocks import ResBlock, noise_embedding


class UNet(nn.Module):
    """UNet that maps an image, a noise coordinate and an optional mask to an image.

    Arguments:
        channels: Image channels.
        widths: Feature channels per level; each level but the first halves the resolution.
        blocks: Residual blocks per level, in the encoder and again in the decoder.
        embedding: Width of the noise embedding.
        holes: Take a mask of unknown pixels besides the image.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        embedding: int = 128,
        holes: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.multiple = 2 ** (len(widths) - 1)
        self.receptive_radius = receptive_field(blocks)
        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )

        def stack(width: int, depth: int) -> nn.ModuleList:
            return nn.ModuleList(ResBlock(width, embedding) for _ in range(depth))

        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.head = nn.Conv2d(channels, widths[0], 3, padding=1)
        if holes:
            self.holes = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
            nn.init.zeros_(self.holes.weight)
        self.encoder = nn.ModuleList(map(stack, widths, blocks))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.decoder = nn.ModuleList(map(stack, widths[:-1], blocks[:-1]))
        self.tail = nn.Conv2d(widths[0], channels, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)

    def forward(self, x: Tensor, c_noise: Tensor, unknown: Tensor | None = None) -> Tensor:
        """Applies the network.

        Arguments:
            x: Input, shape (B, C, H, W); H and W multiples of `multiple`.
            c_noise: Noise coordinate, shape (B,).
            unknown: 1 where x is a guess, else 0, shape (B, 1, H, W); None means 0 everywhere.

        Returns:
            Output, shape (B, C, H, W).
        """
        e = self.embed(noise_embedding(c_noise, self.embedding).to(x.dtype))
        h = self.head(x)
        if unknown is not None:
            h = h + self.holes(unknown)
        skips = []
        for level, stack in enumerate(self.encoder):
            for block in stack:
                h = block(h, e)
            if level < len(self.down):
                skips.append(h)
                h = self.down[level](h)
        for level in reversed(range(len(self.down))):
            h = self.up[level](h) + skips[level]
            for block in self.decoder[level]:
                h = block(h, e)
        return self.tail(nn.functional.silu(h))


def receptive_field(depths: Sequence[int]) -> int:
    """Returns the receptive radius of the UNet: how many pixels away an input has influence.

    Arguments:
        depths: Residual blocks per level, each of two 3x3 convolutions.
    """
    last = len(depths) - 1
    convolutions = sum(2 * d * 2**k * (1 if k == last else 2) for k, d in enumerate(depths))
    return 2 + convolutions + 2**last - 1  # the last term: pixels covered by one deepest pixel
