"""Unconditional sampling: images drawn from a prior alone, without a measurement."""

from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.core.schedules import Spacing, reverse_step, sigma_steps
from genprior.inverse.diffusion.sampler import run_levels
from genprior.priors.base import Denoiser


def sample_denoiser(
    prior: Denoiser,
    like: Tensor,
    generator: Noise,
    steps: int = 100,
    eta: float = 1.0,
    spacing: Spacing = "karras",
    sigma_max: float = 50.0,
    sigma_min: float = 0.005,
) -> Tensor:
    """Draws images from a denoiser by reverse diffusion.

    Arguments:
        prior: Denoiser.
        like: Tensor of the shape, type and device of the images, (B, C, H, W).
        generator: Random streams, one per image.
        steps: Network evaluations.
        eta: 1 is ancestral sampling (DDPM), 0 is DDIM; values between 0 and 1 interpolate.
        spacing: Placement of the noise levels, see `sigma_steps`.
        sigma_max: First level, in image units.
        sigma_min: Last level above 0, in image units.

    Returns:
        Images, shape (B, C, H, W), not clipped.

    References:
        Denoising Diffusion Probabilistic Models, Ho et al., 2020.
        Denoising Diffusion Implicit Models, Song et al., 2021.
    """

    def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
        return reverse_step(x, prior.denoise(x, sigma), noise, sigma, sigma_next, eta)

    return run_levels(like, sigma_steps(steps, sigma_max, sigma_min, spacing), generator, step)
