"""A denoiser that remembers what it was called with."""

from torch import Tensor

from genprior.priors.base import Denoiser


class Recording(Denoiser):
    """Remembers the sizes it saw."""

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
