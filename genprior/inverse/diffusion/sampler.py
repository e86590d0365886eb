"""What all diffusion solvers share: the levels, the loop, one step, Jacobian products.

A solver is an estimate of x0 given the state x at level sigma, and the measurement; `run_ddim`
goes from estimate to estimate by DDIM or DDPM steps. Some papers make a step of their own:
those call `run_levels` with it.
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

PRIOR_MEAN, PRIOR_VAR = 0.5, 0.25

Step = Callable[[Tensor, float, float, Tensor | None], Tensor]
Estimate = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class DiffusionSolver(Solver, ABC):
    """A solver that goes down through noise levels, with one network evaluation at each.

    Arguments:
        steps: Number of levels.
        spacing: Placement of the levels, see `sigma_steps`.
        sigma_max: First level, in image units; unused by "ddpm".
        sigma_min: Last level above 0, likewise.
    """

    steps: int = setting(100, ge=1)
    _: KW_ONLY
    spacing: Spacing = "karras"
    sigma_max: float = setting(50.0, gt=0)
    sigma_min: float = setting(0.005, gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.sigmas  # which complains of levels that cannot be

    @property
    def sigmas(self) -> list[float]:
        """The levels, decreasing, in image units."""
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
    """Goes down by DDIM / DDPM steps, given an estimate of E[x0 | x, y] at every level.

    Arguments:
        y, operator: The measurement, for the shape of the images.
        sigmas: Decreasing noise levels.
        generator: Random streams.
        estimate: Maps (state, sigma) to an estimate of x0.
        eta: 0 is DDIM (deterministic after the first state), 1 is DDPM.

    Returns:
        Images, shape (B, C, H, W).
    """

    def step(x: Tensor, sigma: float, sigma_next: float, noise: Tensor | None) -> Tensor:
        return reverse_step(x, estimate(x, sigma), noise, sigma, sigma_next, eta)

    return run_levels(images_of(y, operator), sigmas, generator, step)


def images_of(y: Tensor, operator: Operator) -> Tensor:
    """A tensor of the shape, type and device of the images behind y, without memory."""
    return y.new_zeros(()).expand(operator.image_shape(y.shape))


def run_levels(
    like: Tensor,
    sigmas: Sequence[float],
    generator: Noise,
    step: Step,
    start: Tensor | None = None,
) -> Tensor:
    """Runs a sampler through decreasing noise levels, the last one being 0.

    Unless it is given, the first state is N(1/2, 1/4 + sigma^2): DDPM's N(0, I) in image units.

    Arguments:
        like: Tensor of the shape, type and device of the images, (B, C, H, W).
        sigmas: Decreasing noise levels; a final 0 is added.
        generator: Noise of the first state and of every step but the last.
        step: Maps (state, sigma, sigma_next, noise) to the state at sigma_next; the noise
            is None where sigma_next is 0.
        start: The first state, at level sigmas[0].

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
    """The denoised image and its vector-Jacobian product, from one network evaluation.

    Vectors are scaled by powers of two to the size of an image, which rounds nothing: small ones
    would be lost in float16.

    Returns:
        D(x) without gradient, and the map v -> J^T v, for any number of calls; it holds the
        memory of the evaluation as long as it lives.

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
