"""Base classes of forward operators, y = A x + sigma n: linear ones, and those that round.

`operators.nonlinear` has the base class of those that are neither. `genprior.to_deepinv` makes a
`deepinv.physics.LinearPhysics` of an operator, and `operators.external.External` an operator of a
linear physics.

Notation: images x are (B, C, H, W), measurements y are (B, ...). A number that may differ
per image (`rho`, `sigma2`) is a float or a tensor of shape (B,).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.linalg import Singular, sum_blocks, to_blocks

GREY = 0.5


class Operator(ABC):
    """Operator with the adjoint and the solves that reconstruction needs; linear by default.

    `is_identity` is true if A x = x: the measurement is the noisy image.
    `is_pixel_mask` is true if A keeps some pixels of x unchanged and sets the others to 0.
    `is_mask` is true if, moreover, A keeps either all channels of a pixel or none.
    `is_downsampling` is true if A is a low-pass filter followed by decimation.
    `is_noisy_image` is true if y is a noisy image of x whose noise need not be white: y is that
    image after a linear map that makes its noise white (`noisy_image`, `colour_noise`).
    `has_stationary_noise` is true if the law of that noise is the same at every pixel.
    `measures_images` is false if y may be anything other than images in [0, 1].
    `is_linear` is false for a `NonlinearOperator` and for a `Quantiser`, which have no adjoint.
    `is_differentiable` is false for a `Quantiser`, whose A is constant in cells.
    `is_pointwise` is true if y is an image, each value of which depends on that of x alone.
    `has_several_minima` is true if images far from each other fit a measurement almost equally
    well, so that a search is made from several starts.
    `takes_float64` is false if A may require images in the dtype of the measurement.
    """

    is_identity = False
    is_pixel_mask = False
    is_mask = False
    is_downsampling = False
    is_noisy_image = False
    has_stationary_noise = True
    measures_images = True
    is_linear = True
    is_differentiable = True
    is_pointwise = False
    has_several_minima = False
    takes_float64 = True

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """Returns A x, the measurement of images x without noise."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns A x, so that an operator can be called."""
        return self.A(x)

    @abstractmethod
    def A_adjoint(self, y: Tensor) -> Tensor:
        """Returns A^T y, the adjoint: <A x, y> = <x, A_adjoint y>."""

    def value_and_vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Returns A x, and the map v -> J^T v with the Jacobian J of A at x.

        For a linear operator J is A. The map can be called many times.
        """
        return self.A(x), self.A_adjoint

    def linearised(self, x: Tensor, y: Tensor) -> "tuple[Operator, Tensor]":
        """Returns a linear J and a measurement b, with J u - b near A u - y for u near x.

        For a linear operator they are A and y.

        Arguments:
            x: Images, shape (B, C, H, W).
            y: Measurements of that many images.
        """
        return self, y

    def expansion_point(self, y: Tensor, start: int = 0) -> Tensor:
        """Returns the images at which an iterative solver linearises A first; grey by default.

        Arguments:
            y: Measurements, shape (B, ...).
            start: Number >= 0 of the start, where an operator `has_several_minima`.
        """
        return y.new_full(self.image_shape(y.shape), GREY)

    def gram(self, x: Tensor) -> Tensor:
        """Returns A^T A x."""
        return self.A_adjoint(self.A(x))

    def block_gram(self, c: Tensor, factor: int, image_shape: torch.Size) -> Tensor:
        """Returns E^T A^T A E c, where E repeats the pixels of c in blocks, see `to_blocks`.

        Arguments:
            c: Images with a pixel for each block of factor x factor pixels.
            factor: Side of the blocks in pixels.
            image_shape: Shape (B, C, H, W) of the images E c.
        """
        return sum_blocks(self.gram(to_blocks(c, factor, image_shape)), factor)

    @abstractmethod
    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        """Returns the shape (B, C, H, W) of images whose measurements have the given shape.

        Raises:
            ValueError: No image has a measurement of this shape.
        """

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """Returns A^+ y, the least-squares image of smallest norm."""

    @abstractmethod
    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Returns argmin_u ||A u - y||^2 + rho ||u - x||^2.

        Arguments:
            x: Images, shape (B, C, H, W).
            y: Measurements.
            rho: Weight >= 0, a number or shape (B,). At 0 the result is the limit
                x + A^+ (y - A x): the least-squares image nearest to x.
        """

    def proximal(self, y: Tensor) -> Callable[[Tensor, float | Tensor], Tensor]:
        """Returns (x, rho) -> prox(x, y, rho) for many calls: what depends on y is done once."""
        return lambda x, rho: self.prox(x, y, rho)

    @abstractmethod
    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        """Returns (c A A^T + sigma2 I)^{-1} v; at sigma2 = 0, the pseudo-inverse applied to v.

        Arguments:
            v: Measurements.
            c: Weight > 0, a number or shape (B,).
            sigma2: Weight >= 0, a number or shape (B,).
        """

    def precondition(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        """Approximates `solve_gram` by a map that is linear, symmetric and positive in v."""
        return self.solve_gram(v, c, sigma2)

    def select(self, images: Sequence[int]) -> "Operator":
        """Returns the operator of the given images of the batch, in that order; repeats allowed.

        An operator that is the same for every image returns itself.
        """
        return self

    def crop(self, rows: slice, columns: slice) -> "Operator | None":
        """Returns the operator between a window of the images and the same window of y.

        Returns None if there is none: a measured pixel may depend on several image pixels.
        """
        return None

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        """Returns the singular value decomposition of A for images of that shape.

        Arguments:
            image_shape: Shape (B, C, H, W) of the images.
            like: A tensor with the dtype and device of the result.

        Raises:
            SettingError: The decomposition is not known in closed form.
        """
        raise SettingError(
            f"the singular vectors of {type(self).__name__} are not known: this solver takes "
            f"inpainting, denoising, circular blur, separable blur (such as a Gaussian) and "
            f"super-resolution; choose another solver"
        )

    def is_batch(self, shape: torch.Size) -> bool:
        """Returns whether a tensor of that shape is a batch of measurements, not a single one."""
        return len(shape) == 4

    def pack(self, y: Any) -> Tensor:
        """Converts measurements of any type, such as deepinv's, to one real tensor (B, ...)."""
        packed: Tensor = y
        return packed

    def unpack(self, y: Tensor) -> Any:
        """Reverses `pack`."""
        return y

    def rescaled(self, measurement_shape: torch.Size) -> tuple["Operator", float | Tensor]:
        """Returns the operator with rescaled measurements, if their unit is arbitrary.

        Returns:
            The operator, and the divisor of measurements and noise levels: a number, or
            shape (1,) or (B,). Operators that measure images in [0, 1] return themselves and 1.
        """
        return self, 1.0

    def check_shape(self, measurement_shape: torch.Size) -> None:
        """Checks that the operator has measurements of that shape.

        Raises:
            ValueError: It has none.
        """
        self.image_shape(measurement_shape)

    def mask_unmeasured(self, v: Tensor) -> Tensor:
        """Returns measurements v with the unmeasured entries set to 0."""
        return v

    def num_measurements(self, y: Tensor) -> Tensor:
        """Returns the number of measured entries of y per image, shape (B,)."""
        return self.mask_unmeasured(torch.ones_like(y)).flatten(1).sum(dim=1)

    def keep_known(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns images x, with what A keeps of a pixel taken from y: its values or its grey."""
        return x

    def noisy_image(self, y: Tensor) -> Tensor:
        """Returns the noisy image of a measurement, if `is_noisy_image` is true."""
        raise NotImplementedError(f"{type(self).__name__} does not measure a noisy image")

    def colour_noise(self, white: Tensor) -> Tensor:
        """Returns noise of the law of that image, made of white noise of level 1, (B, C, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} does not measure a noisy image")

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Returns the measurement that an image file with these pixels, (B, C, H, W), holds."""
        return self.mask_unmeasured(pixels)

    def crop_margin(self, x: Tensor) -> Tensor:
        """Returns images x as users get them: without a margin, or resampled to another size."""
        return x


class Quantiser(Operator):
    """Operator that rounds numbers which depend linearly on the image, such as JPEG.

    It is not linear: it has no adjoint, and its gradient is 0 almost everywhere. The image lies
    in known cells, and `prox` is the projection onto them, whatever rho. A x and y are images of
    the same size.
    """

    is_linear = False
    is_differentiable = False

    @abstractmethod
    def conditional_mean(self, x: Tensor, y: Tensor, spread: float | Tensor) -> Tensor:
        """Returns E[u | u in the cells of y] for u = x + spread n, one number of u at a time.

        Arguments:
            x: Images, shape (B, C, H, W).
            y: Measurements.
            spread: Standard deviation of the rounded numbers in image units, >= 0, a number or
                shape (B,). At 0 the result is the projection onto the cells.
        """

    @abstractmethod
    def error_std(self, y: Tensor) -> Tensor:
        """Returns the standard deviation of the rounding error of coarse details, shape (B,).

        It is in image units.
        """

    @abstractmethod
    def unexplained(self, y: Tensor) -> Tensor:
        """Returns the share of y that is no output of the operator, 0 to 1, shape (B,)."""

    @abstractmethod
    def doubt(self, share: float) -> str:
        """Returns what to tell the user if a large share of y is no output of the operator."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """Returns the settings of the rounding, as JSON types."""

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        return self.conditional_mean(x, y, 0.0)

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def A_adjoint(self, y: Tensor) -> Tensor:
        raise SettingError(f"{type(self).__name__} is not linear: it has no adjoint")

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        raise SettingError(f"{type(self).__name__} is not linear: A A^T is not defined")


class Convolution(Operator):
    """Operator that convolves an image with a kernel.

    Attributes:
        kernel: Shape (1 or B, 1, h, w); it sums to 1.
        boundary: Rule for pixels outside the image: "valid" (none is needed, y is smaller than
            x), "reflect", "replicate" or "circular".
    """

    kernel: Tensor
    boundary: str


class ColourFilter(Operator):
    """Operator that measures one number for each pixel of a colour image, y = sum_c w_c x_c.

    Attributes:
        weights: w, shape (1, 3, h, w): a tile that is repeated over the image, from its upper left
            corner on.
    """

    weights: Tensor

    @property
    def is_uniform(self) -> bool:
        """Whether the weights are the same at all pixels, so that y is a grey image."""
        return self.weights.shape[-2:] == (1, 1)

    def grey(self, y: Tensor) -> Tensor:
        """Returns the image without colours that a grey image measures, (B, 3, H, W)."""
        return (y / self.weights.sum().to(y)).expand(-1, 3, -1, -1).clone()
