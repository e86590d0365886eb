"""Adapter that makes an operator of a nonlinear physics of deepinv, or of a function of torch."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.linalg import per_image
from genprior.operators.chebyshev import largest_singular
from genprior.operators.nonlinear import Linearised, NonlinearOperator
from genprior.operators.physics_maps import REFUSALS, Maps, treats_all_alike

# Largest relative difference of the measurements of an image alone and in a batch: rounding.
ALIKE = 1e-3
# Values of the random images on which a physics is tried.
LOW, HIGH = 0.25, 0.75


class ExternalNonlinear(NonlinearOperator, nn.Module):
    """Operator that calls a function of torch, or the method A of a physics.

    The physics is neither copied nor changed; its noise model is not used here. A complex
    measurement is stored as two real numbers, and several measurements of an image as one tensor.

    Arguments:
        A: A function of images (B, C, H, W), or an object with a method `A`, such as a
            `deepinv.physics.Physics`. torch must be able to differentiate it, and it must treat
            the images of a batch alike.
        image_shape: Shape (C, H, W) of the images; None is that of `A_adjoint(y)`, if the object
            has such a method.

    Raises:
        TypeError: It is neither a function nor an object with a method A.
    """

    measures_images = False
    takes_float64 = False

    def __init__(
        self, A: object, image_shape: tuple[int, int, int] | None = None
    ) -> None:
        super().__init__()
        method = getattr(A, "A", None)
        if not callable(method) and not callable(A):
            raise TypeError(
                f"a nonlinear operator must be a function of images, or an object with a method "
                f"A, and {type(A).__name__} is neither"
            )
        self.physics: Any = A if callable(method) else _Function(A)
        self.maps = Maps(self.physics)
        self._image_shape = tuple(image_shape) if image_shape is not None else None
        self._divisor: Tensor | None = None

    def A(self, x: Tensor) -> Tensor:
        y = self.maps.apply(self.maps.forward, x)
        return y if self._divisor is None else y / per_image(self._divisor, y)

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        if self._image_shape is not None:
            return torch.Size((measurement_shape[0], *self._image_shape))
        adjoint = getattr(self.physics, "A_adjoint", None)
        try:
            if adjoint is not None:
                y = self.maps.unpack(torch.zeros(measurement_shape, **self.maps.tensor_options()))
                return torch.Size(adjoint(y).shape)
        except (*REFUSALS, NotImplementedError, AttributeError):
            pass  # the next error says what to give
        raise ValueError(
            f"{self._name} does not tell the shape of its images: give "
            f'make_operator("nonlinear", A=..., image_shape=(channels, height, width))'
        )

    def check_shape(self, measurement_shape: torch.Size) -> None:
        """Tries the physics on random images.

        Raises:
            TypeError: torch cannot differentiate A.
            ValueError: It has no measurements of that shape, or treats the images of a batch
                differently.
        """
        x = self._random(self.image_shape(measurement_shape))
        try:
            y = self.A(x)
        except REFUSALS as error:
            raise ValueError(
                f"{self._name} does not accept images of shape {tuple(x.shape)}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if y.shape != measurement_shape:
            raise ValueError(
                f"{self._name} makes measurements of shape {tuple(y.shape)}, got "
                f"{tuple(measurement_shape)}"
            )
        Linearised(self, x)  # raises if there is no derivative
        if not treats_all_alike(self.A, x, y, ALIKE):
            raise ValueError(
                f"{self._name} measures each image of a batch in another way: restore the images "
                f"one by one, each with its own operator"
            )

    def rescaled(self, measurement_shape: torch.Size) -> tuple["ExternalNonlinear", Tensor]:
        """See `Operator.rescaled`; the divisor makes the norm of the Jacobian about 1.

        The Jacobian is that at random images of the middle of the range.
        """
        x = self._random(torch.Size((1, *self.image_shape(measurement_shape)[1:])))
        J = Linearised(self, x)
        norm = largest_singular(J.A, J.A_adjoint, x)
        divisor = torch.where(norm > 0, 2 ** norm.log2().round(), 1)  # power of 2: exact
        scaled = copy.copy(self)
        scaled._divisor = None if (divisor == 1).all() else divisor
        return scaled, divisor

    def __copy__(self) -> "ExternalNonlinear":
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    def pack(self, y: Any) -> Tensor:
        return self.maps.pack(y)

    def unpack(self, y: Tensor) -> Any:
        return self.maps.unpack(y)

    @property
    def _name(self) -> str:
        return type(self.physics).__name__

    def _random(self, shape: torch.Size) -> Tensor:
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return (LOW + (HIGH - LOW) * x).to(**self.maps.tensor_options())


class _Function:
    """A function as the method A of an object."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.A = function
