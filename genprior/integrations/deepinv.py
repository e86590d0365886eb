"""Adapters from genprior to deepinv: operators as physics, priors as denoisers.

`genprior.to_deepinv` makes them. The other direction needs no call: `genprior.restore` takes a
physics or a denoiser of deepinv as it is.
"""

from typing import Any, cast

import deepinv
import torch
from torch import Tensor

from genprior.operators.base import Convolution, Operator
from genprior.priors.base import Denoiser

# Smallest noise level that is passed to a denoiser; some methods of deepinv call with 0.
SMALLEST_SIGMA = 1e-5


class OperatorPhysics(deepinv.physics.Physics):
    """A genprior operator with deepinv's interface.

    Arguments:
        operator: The operator; it becomes a submodule, so `.to(device)` moves it.
        noise_model: Noise that calling the physics adds; None adds none.
    """

    def __init__(self, operator: Operator, noise_model: Any = None) -> None:
        super().__init__(noise_model=noise_model or deepinv.physics.ZeroNoise())
        self.operator = operator

    def A(self, x: Tensor, **_: Any) -> Tensor:
        return self.operator.A(x)

    def A_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J^T v with the Jacobian J of A at x."""
        return self.operator.value_and_vjp(x)[1](v)

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """Least-squares image, `Operator.pinv`: of smallest norm if A is linear, else local."""
        return self.operator.pinv(y)


class Physics(OperatorPhysics, deepinv.physics.LinearPhysics):
    """A linear genprior operator with deepinv's interface; the solves are those of the operator.

    Arguments: see `OperatorPhysics`.
    """

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        return self.operator.A_adjoint(y)

    def prox_l2(
        self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **_: Any
    ) -> Tensor:
        """argmin_u gamma/2 ||A u - y||^2 + 1/2 ||u - z||^2, `Operator.prox`."""
        if not isinstance(z, Tensor):
            z = y.new_full(self.operator.image_shape(y.shape), z or 0.0)
        return self.operator.prox(z, y, 1 / gamma)


class DenoiserModel(deepinv.models.Denoiser):
    """A genprior denoiser with deepinv's interface.

    Arguments:
        prior: The prior; it is not registered as a submodule, so it is neither moved nor copied.
        channels: Channels of an image, if a method of deepinv stacks a batch as channels; None
            passes images as they are.
    """

    def __init__(self, prior: Denoiser, channels: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        self._prior = [prior]

    def forward(self, x: Tensor, sigma: float | Tensor, *_: Any, **__: Any) -> Tensor:
        sigma = torch.as_tensor(sigma).to(x).flatten().clamp(min=SMALLEST_SIGMA)
        images = x if self.channels is None else x.reshape(-1, self.channels, *x.shape[2:])
        sigma = sigma if len(sigma) > 1 else sigma[0]
        return self._prior[0].denoise(images, sigma).reshape(x.shape)


def decomposable(operator: Operator, image_shape: torch.Size) -> deepinv.physics.LinearPhysics:
    """Returns deepinv's own physics of a mask or a circular blur, else the wrapped operator.

    deepinv knows the singular values of its own physics, as some of its methods (DDRM) need.

    Arguments:
        operator: The operator.
        image_shape: Shape (C, H, W) of the images.
    """
    if isinstance(operator, Convolution) and operator.boundary == "circular":
        kernel = operator.kernel
        return deepinv.physics.BlurFFT(tuple(image_shape), filter=kernel, device=kernel.device)
    if operator.is_identity:
        return deepinv.physics.Denoising(noise_model=deepinv.physics.ZeroNoise())
    if operator.is_pixel_mask:
        mask = cast(Any, operator).mask
        return deepinv.physics.Inpainting(tuple(image_shape), mask=mask, device=mask.device)
    return Physics(operator)
