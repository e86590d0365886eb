"""The loop that all diffusion solvers share: from pure noise down to an image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genprior.noise import Noise

PRIOR_MEAN, PRIOR_VAR = 0.5, 0.25

Step = Callable[[Tensor, float, float, Tensor | None], Tensor]


def run_chain(like: Tensor, sigmas: Sequence[float], generator: Noise, step: Step) -> Tensor:
    """Runs a sampler through decreasing noise levels, the last one being 0.

    The first state is N(1/2, 1/4 + sigma^2), which is DDPM's N(0, I) in image units.

    Arguments:
        like: Tensor of the shape, type and device of the images, (B, C, H, W).
        sigmas: Decreasing noise levels; a final 0 is added.
        generator: Noise of the first state and of every step but the last.
        step: Maps (state, sigma, sigma_next, noise) to the state at sigma_next; the noise
            is None where sigma_next is 0.

    Returns:
        Images, shape (B, C, H, W).
    """
    with torch.no_grad():
        spread = (PRIOR_VAR + sigmas[0] ** 2) ** 0.5
        x = PRIOR_MEAN + spread * generator.normal(like)
        for sigma, sigma_next in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
            x = step(x, sigma, sigma_next, generator.normal(x) if sigma_next else None)
    return x


def denoise_with_vjp(
    denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigma: float
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The denoised image and its vector-Jacobian product, from one network evaluation.

    Returns:
        D(x) without gradient, and the map v -> J^T v; it may be called once.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x_hat = denoise(x, sigma)

    def vjp(v: Tensor) -> Tensor:
        return torch.autograd.grad(x_hat, x, v)[0]

    return x_hat.detach(), vjp
