"""What a measurement operator can do, y = A x + sigma n.

Our operators are `deepinv.physics.LinearPhysics` too, so they go into deepinv's own
reconstructors; a physics of deepinv comes in through `operators.external.External`.
`Operator` is the first base class, so that deepinv calls the solves below, not its own.

Notation: images x are (B, C, H, W), measurements y are (B, ...). A number that may differ
per image (`rho`, `sigma2`) is a float or a tensor of shape (B,).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.linalg import Singular


class Operator(ABC):
    """A linear operator with the solves that reconstruction needs.

    `is_identity` is true where A x = x, so that y is nothing but a noisy image.
    `is_pixel_mask` is true where A keeps some pixels of x as they are, and sets others to 0.
    `is_mask` is true where it does so in all channels of a pixel or in none.
    `measures_images` is false where y may be anything else than images in [0, 1].
    `takes_float64` is false where images may have to be of the type of the measurement.
    """

    is_identity = False
    is_pixel_mask = False
    is_mask = False
    measures_images = True
    takes_float64 = True

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """Measurement of images x, without noise."""

    @abstractmethod
    def A_adjoint(self, y: Tensor) -> Tensor:
        """Adjoint: <A x, y> = <x, A_adjoint y>."""

    @abstractmethod
    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        """Shape (B, C, H, W) of the images whose measurements have the given shape.

        Raises:
            ValueError: No image has such a measurement.
        """

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """Least-squares image of smallest norm, A^+ y."""

    @abstractmethod
    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """argmin_u ||A u - y||^2 + rho ||u - x||^2.

        Arguments:
            x: Images, shape (B, C, H, W).
            y: Measurements.
            rho: Weight >= 0, a number or shape (B,). At 0 it is the limit
                x + A^+ (y - A x): the least-squares image nearest to x.
        """

    @abstractmethod
    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        """(c A A^T + sigma2 I)^{-1} v for measurements v; the pseudo-inverse at sigma2 = 0.

        Arguments:
            v: Measurements.
            c: Weight > 0, a number or shape (B,).
            sigma2: Weight >= 0, a number or shape (B,).
        """

    def precondition(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        """About `solve_gram`, but linear in v: symmetric, positive semi-definite."""
        return self.solve_gram(v, c, sigma2)

    def select(self, images: Sequence[int]) -> "Operator":
        """The operator of the given images of the batch, in that order, repeats allowed.

        An operator that does the same to every image returns itself.
        """
        return self

    def crop(self, rows: slice, columns: slice) -> "Operator | None":
        """The operator between a part of the images and the same part of the measurements.

        None where a measured pixel depends on more than one pixel of the image.
        """
        return None

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        """The singular coordinates of A for images of that shape, in the type of `like`.

        Raises:
            SettingError: They are not known in closed form.
        """
        raise SettingError(
            f"the singular vectors of {type(self).__name__} are not known: this solver takes "
            f"masks, circular blur, separable blur (a Gaussian) and SR: choose another solver"
        )

    def is_batch(self, shape: torch.Size) -> bool:
        """Whether a tensor of that shape is a batch of measurements, and no single one."""
        return len(shape) == 4

    def pack(self, y: Any) -> Tensor:
        """Measurements of any kind, made by others, as one real tensor (B, ...)."""
        return y

    def unpack(self, y: Tensor) -> Any:
        """Undoes `pack`."""
        return y

    def rescaled(self, measurement_shape: torch.Size) -> tuple["Operator", float | Tensor]:
        """The operator of measurements in other units, where its own say nothing.

        Returns:
            The operator, and what to divide measurements and noise levels by: a number, or
            shape (1,) or (B,). Operators of ours measure images, in [0, 1] as those are.
        """
        return self, 1.0

    def check_shape(self, measurement_shape: torch.Size) -> None:
        """Makes sure that measurements of that shape can be worked with.

        Raises:
            ValueError: There are none.
        """
        self.image_shape(measurement_shape)

    def mask_unmeasured(self, v: Tensor) -> Tensor:
        """Measurements v with the entries that nothing was measured at set to 0."""
        return v

    def num_measurements(self, y: Tensor) -> Tensor:
        """How many numbers of y carry information, per image, shape (B,)."""
        return self.mask_unmeasured(torch.ones_like(y)).flatten(1).sum(dim=1)

    def keep_known(self, x: Tensor, y: Tensor) -> Tensor:
        """Puts pixels that y holds without any change, where there are such, into images x."""
        return x

    def crop_margin(self, x: Tensor) -> Tensor:
        """The part of images x that a user sees; an operator may need a margin around it."""
        return x

    def A_dagger(self, y: Tensor, **_: Any) -> Tensor:
        """`pinv` under deepinv's name."""
        return self.pinv(y)

    def prox_l2(
        self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **_: Any
    ) -> Tensor:
        """`prox` under deepinv's name: argmin_u gamma/2 ||A u - y||^2 + 1/2 ||u - z||^2."""
        if not isinstance(z, Tensor):
            z = y.new_full(self.image_shape(y.shape), z or 0.0)
        return self.prox(z, y, 1 / gamma)
