"""Denoiser of complex images: their real and imaginary parts are denoised as grey images.

    D(a + i b, s) = 2 D((a + 1) / 2, s / 2) - 1 + i (2 D((b + 1) / 2, s / 2) - 1)

The parts of an image of magnitude up to 1 are in [-1, 1], and a prior takes images in [0, 1].
Without this map of the range, the shipped prior loses 0.5 to 5 dB on photographs with a phase, and
gains 0.2 to 0.3 dB on those without.
"""

import torch
from torch import Tensor, nn

from genprior.priors.base import Denoiser
from genprior.priors.nets.channels import from_network, to_network


class ComplexParts(nn.Module, Denoiser):
    """Denoiser of complex images, given as two channels in [-1, 1].

    The noise is white in both parts, with the same level, and the parts count as independent.

    Arguments:
        prior: A denoiser of images with one or three channels, as its attribute `channels` says;
            three channels get three copies of a part.
    """

    channels = 2

    def __init__(self, prior: Denoiser) -> None:
        super().__init__()
        self.prior = prior
        self.receptive_radius, self.stride = prior.receptive_radius, prior.stride
        self.is_inpainter, self.symmetries = prior.is_inpainter, prior.symmetries

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self._joined(self.prior.denoise(self._parts(x), _halved(sigma)), x)

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        unknown = unknown.repeat_interleave(2, dim=0)
        return self._joined(
            self.prior.denoise_masked(self._parts(x), _halved(sigma), unknown), x
        )

    def _parts(self, x: Tensor) -> Tensor:
        grey = (x + 1).flatten(0, 1)[:, None] / 2
        return to_network(grey, self.prior.channels)

    def _joined(self, parts: Tensor, like: Tensor) -> Tensor:
        return (2 * from_network(parts, 1) - 1).reshape(like.shape)


def _halved(sigma: float | Tensor) -> float | Tensor:
    """Returns the level of the parts, in units of [0, 1]; (B,) becomes (2 B,)."""
    if isinstance(sigma, Tensor) and sigma.numel() > 1:
        return torch.repeat_interleave(sigma.flatten() / 2, 2)
    return sigma / 2
