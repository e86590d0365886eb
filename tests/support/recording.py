"""Denoiser that records the image sizes of its calls."""

from torch import Tensor

from genprior.priors.base import Denoiser


class Recording(Denoiser):
    """Wraps a denoiser and records the size of every input in `seen`."""

    def __init__(self, prior: Denoiser) -> None:
        self.prior, self.receptive_radius, self.stride, self.seen = (
            prior,
            prior.receptive_radius,
            prior.stride,
            [],
        )
        self.symmetries = prior.symmetries

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.seen.append(tuple(x.shape[-2:]))
        return self.prior.denoise(x, sigma)
