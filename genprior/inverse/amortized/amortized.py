"""Amortised solver: one evaluation of a conditional generator that was trained for the task.

    x = G(u),    u = argmin_v ||A v - y||^2 + (sigma / s)^2 ||v - 1/2||^2

u is the rough reconstruction: the posterior mean if the pixels were independent, N(1/2, s^2). It
has the size of the image for any linear operator. For others it is an image that fits y, such as
the decoded file of JPEG.

The generator knows the measurement by u alone, and nothing makes A x agree with y. For another
operator or noise level than those of its training its result is wrong, so a warning says so. Two
measurements are told apart by what u loses of random blocks of 1, 4 and 16 pixels.

References:
    Image-to-Image Translation with Conditional Adversarial Networks, Isola, Zhu, Zhou and Efros,
        2017.

Differs from the authors' code:
    1. Their input is the degraded image itself; u also exists for measurements that are no image.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.core.linalg import to_blocks
from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver
from genprior.operators.base import Operator
from genprior.priors.base import PROBES, ConditionalGenerator

# Standard deviation of a pixel around 1/2, and the smallest noise level that is assumed.
PIXEL_STD, LEAST_NOISE = 0.25, 0.01
# Largest difference of two signatures of one task: random masks vary by about 0.01.
SAME = 0.05


@dataclass(frozen=True)
class Amortized(Solver):
    """Amortised solver: evaluates a network that was trained for the measurements of one task."""

    needs: ClassVar[type] = ConditionalGenerator
    stochastic: ClassVar[bool] = False
    uses = "prox"
    has_texture: ClassVar[bool] = True
    summary: ClassVar[str] = "one evaluation of a network trained for one task, such as pix2pix"
    nfe: ClassVar[int] = 1

    def rough(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        """Returns the rough reconstruction u, the input of a conditional generator.

        Arguments:
            y: Measurements, shape (B, ...); unmeasured entries are 0.
            operator: Their operator.
            noise_std: Noise levels, shape (B,), >= 0.

        Returns:
            Images, shape (B, C, H, W), not clipped.
        """
        if not operator.is_linear:
            return operator.pinv(y)
        grey = y.new_full(operator.image_shape(y.shape), 0.5)
        return operator.prox(grey, y, (noise_std.to(y).clamp(min=LEAST_NOISE) / PIXEL_STD) ** 2)

    def signature(
        self, operator: Operator, image_shape: torch.Size, noise_std: Tensor
    ) -> Tensor:
        """Returns what a measurement loses, shape (B, len(PROBES)), from 0 to about 1.

        It is the relative error of the rough reconstruction of random blocks of `PROBES` pixels,
        measured without noise.

        Arguments:
            operator: The operator.
            image_shape: Shape (B, C, H, W) of the images.
            noise_std: Noise levels, shape (B,), >= 0.
        """
        lost = []
        for side in PROBES:
            sides = (-(-n // side) for n in image_shape[-2:])
            drawn = 0.2 * Noise(side, [0]).normal(noise_std.new_empty(1, image_shape[1], *sides))
            blocks = to_blocks(drawn, side, torch.Size((1, *image_shape[1:]))).expand(image_shape)
            y = operator.mask_unmeasured(operator.A(0.5 + blocks))
            error = self.rough(y, operator, noise_std) - 0.5 - blocks
            lost.append(error.flatten(1).norm(dim=1) / blocks.flatten(1).norm(dim=1))
        return torch.stack(lost, dim=1)

    def doubts(
        self, y: Tensor, operator: Operator, prior: ConditionalGenerator, noise_std: Tensor
    ) -> tuple[str, ...]:
        if not prior.task:
            return ()
        found = self.signature(operator, operator.image_shape(y.shape), noise_std.to(y))
        other = (found - prior.signature.to(found)).abs().amax(dim=1) > SAME
        return tuple(
            f"image {i}: {type(prior).__name__} was trained for {prior.task}, and this is another "
            f"measurement: use a prior for all measurements, such as ddpm, or train another one"
            for i in other.nonzero().flatten().tolist()
        )

    def solve(
        self, y: Tensor, operator: Operator, prior: ConditionalGenerator, noise_std: Tensor,
        generator: Noise,
    ) -> Tensor:
        with torch.no_grad():
            return prior.translate(self.rough(y, operator, noise_std))
