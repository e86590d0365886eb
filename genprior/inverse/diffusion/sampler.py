"""Diffusion sampling loop: noise levels, DDIM / DDPM steps and vector-Jacobian products.

All diffusion solvers share these parts. Most solvers are an estimate of x0, given the state x at
level sigma and the measurement: `run_ddim` runs DDIM or DDPM steps with it. Solvers whose papers
define another step pass that step to `run_levels`.
"""

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.core.schedules import Spacing, reverse_step, sigma_steps
from genprior.inverse.base import Solver, setting
from genprior.operators.base import Operator

# Of a pixel: mean 0 and variance 1 of DDPM on [-1, 1], in image units.
PRIOR_MEAN, PRIOR_VAR = 0.5, 0.25

Step = Callable[[Tensor, float, float, Tensor | None], Tensor]
Estimate = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class DiffusionSolver(Solver, ABC):
    """Base class of solvers with decreasing noise levels, by default one evaluation at each.

    Arguments:
        steps: Number of levels.
        spacing: Placement of the levels, see `sigma_steps`.
        sigma_max: First level, in image units; unused by "ddpm".
        sigma_min: Last level above 0, in image units; unused by "ddpm".
    """

    steps: int = setting(100, ge=1)
    _: KW_ONLY
    spacing: Spacing = "karras"
    sigma_max: float = setting(50.0, gt=0)
    sigma_min: float = setting(0.005, gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.sigmas  # raises an error if the levels are invalid

    @property
    def sigmas(self) -> list[float]:
        """Noise levels, decreasing, in image units."""
        return sigma_steps(self.steps, self.sigma_max, self.sigma_min, self.spacing)

    @property
    def nfe(self) -> int:
        return len(self.sigmas)


def run_ddim(
    y: Tensor,
    operator: Operator,
    sigmas: Sequence[float],
    generator: Noise,
    estimate: Estimate,
    eta: float,
) -> Tensor:
    """Runs DDIM / DDPM steps, given an estimate of E[x0 | x, y] at every level.

    Arguments:
        y, operator: Measurement and operator; they determine the shape of the images.
        sigmas: Decreasing noise levels.
        generator: Random streams, one per image.
        estimate: Maps (state, sigma) to an estimate of x0.
        eta: 0 is DDIM (deterministic after the first state), 1 is DDPM.

    Returns:
        Images, shape (B, C, H, W).
    """

    def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
        return reverse_step(x, estimate(x, sigma), noise, sigma, sigma_next, eta)

    return run_levels(images_of(y, operator), sigmas, generator, step)


def images_of(y: Tensor, operator: Operator) -> Tensor:
    """Returns zeros of the shape, type and device of the images measured in y, without memory."""
    return y.new_zeros(()).expand(operator.image_shape(y.shape))


def run_levels(
    like: Tensor,
    sigmas: Sequence[float],
    generator: Noise,
    step: Step,
    start: Tensor | None = None,
) -> Tensor:
    """Runs a sampler through decreasing noise levels, the last of which is 0.

    If `start` is None, the first state is drawn from N(1/2, 1/4 + sigma^2), which is DDPM's
    N(0, I) in image units.

    Arguments:
        like: Tensor of the shape, type and device of the images, (B, C, H, W).
        sigmas: Decreasing noise levels; a final 0 is added.
        generator: Noise of the first state and of every step but the last.
        step: Maps (state, sigma, sigma_next, noise) to the state at sigma_next; the noise
            is None where sigma_next is 0.
        start: The first state, at level sigmas[0]; None draws it.

    Returns:
        Images, shape (B, C, H, W).
    """
    with torch.no_grad():
        x = start
        if x is None:
            spread = (PRIOR_VAR + sigmas[0] ** 2) ** 0.5
            x = PRIOR_MEAN + spread * generator.normal(like)
        for sigma, sigma_next in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
            x = step(x, sigma, sigma_next, generator.normal(x) if sigma_next else None)
    return x


def denoise_with_vjp(
    denoise: Callable[[Tensor, float | Tensor], Tensor], x: Tensor, sigma: float | Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Returns the denoised image and its vector-Jacobian product, from one network evaluation.

    Vectors are scaled to a largest entry between 1 and 2, since small ones would underflow in
    float16. The scale is a power of two, so that it causes no rounding.

    Returns:
        D(x) without gradient, and the map v -> J^T v. The map can be called many times, and keeps
        the activations of the evaluation in memory as long as it exists.

    Raises:
        TypeError: The denoiser is not differentiable.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x_hat = denoise(x, sigma)
    if not x_hat.requires_grad:
        raise TypeError(
            "this solver differentiates the prior, which gives no gradients: choose one without "
            "backward passes, such as jfps or diffpir"
        )

    def vjp(v: Tensor) -> Tensor:
        largest = v.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
        scale = largest.log2().floor().exp2()
        return scale * torch.autograd.grad(x_hat, x, v / scale, retain_graph=True)[0]

    return x_hat.detach(), vjp
