"""Prior from any denoiser: a deepinv denoiser or a function of the user."""

from collections.abc import Callable

from torch import Tensor, nn

from genprior.priors.base import Denoiser


class External(nn.Module, Denoiser):
    """Denoiser that is assumed to return the posterior mean E[x0 | x0 + sigma n].

    Samples are only as good as this assumption. A network trained for the least squared error at
    all noise levels that a solver uses (its settings `sigma_max` to `sigma_min`) fulfils it; a
    median filter does not.

    Arguments:
        network: Function (images, noise level) -> denoised images, such as a
            `deepinv.models.Denoiser`, for images (B, C, H, W) in [0, 1] and a level that is a
            number or has shape (B,). Solvers with backward passes need it differentiable.
        channels: Channels of its images, 1 or 3, so that it also takes complex images part by
            part; None passes images as they are.

    Raises:
        TypeError: The network is not callable.
        ValueError: Raised by `denoise` if the network changes the shape of the images.
    """

    def __init__(
        self,
        network: Callable[[Tensor, float | Tensor], Tensor],
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if not callable(network):
            raise TypeError(
                f"a denoiser must be callable with images and a noise level, got {network!r}"
            )
        self.network, self.channels = network, channels
        self.training = getattr(network, "training", False)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        denoised = self.network(x, sigma)
        if denoised.shape != x.shape:
            raise ValueError(
                f"a denoiser must keep the shape of the images, but {type(self.network).__name__} "
                f"turns {tuple(x.shape)} into {tuple(denoised.shape)}: it is not a denoiser"
            )
        return denoised
