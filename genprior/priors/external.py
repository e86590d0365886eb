"""Any denoiser of deepinv, or of a user, as a prior."""

from collections.abc import Callable

from torch import Tensor, nn

from genprior.priors.base import Denoiser


class External(nn.Module, Denoiser):
    """Takes what denoises for the posterior mean E[x0 | x0 + sigma n].

    Samples are as good as that: a network trained for the least squared error at all the levels
    that a solver visits (`sigma_max` down to `sigma_min` are settings of solvers) is a prior, a
    median filter is none in that sense.

    Arguments:
        network: Maps noisy images (B, C, H, W) in [0, 1], and a noise level that is a number or
            has shape (B,), to denoised images, such as a `deepinv.models.Denoiser`. It must be
            differentiable for solvers with backward passes.

    Raises:
        TypeError: The network cannot be called.
        ValueError: Of a call: its images are not of the shape of those that it was given.
    """

    def __init__(self, network: Callable[[Tensor, float | Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(network):
            raise TypeError(f"a denoiser is called with images and a noise level, got {network!r}")
        self.network = network
        self.training = getattr(network, "training", False)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        denoised = self.network(x, sigma)
        if denoised.shape != x.shape:
            raise ValueError(
                f"{type(self.network).__name__} makes images of shape {tuple(denoised.shape)} of "
                f"images of shape {tuple(x.shape)}: it is no denoiser"
            )
        return denoised
