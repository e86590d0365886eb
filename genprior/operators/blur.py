"""Blur operator: y = k * x, a true convolution, with four boundary rules.

Circular blur is diagonal in the Fourier basis. Under the other three rules, a separable kernel
(such as a Gaussian) has the exact SVD of `operators.separable`. All other kernels are solved by
conjugate gradients on measurements,

    prox(x, y, rho) = x + A^T (A A^T + rho I)^{-1} (y - A x).

A A^T of a "valid" blur is the restriction of a convolution. A convolution with
1 / (|k^|^2 + rho) is close to its inverse: with this preconditioner, few iterations suffice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fft import irfft2, rfft2

from genprior.core.linalg import Singular, cg, damped_inverse, fast_shape, per_image
from genprior.operators.base import Convolution
from genprior.operators.cache import SharedCache
from genprior.operators.filter_matrices import filter_matrix
from genprior.operators.kernels import check_kernel, separate
from genprior.operators.separable import Separable

BOUNDARIES = ("valid", "reflect", "replicate", "circular")
# Smallest damping of the preconditioner, relative to c: the best in few iterations.
MIN_DAMPING = 0.01


class Blur(Convolution, nn.Module):
    """Convolution with a kernel whose centre is its pixel (h // 2, w // 2).

    Arguments:
        kernel: Shape (h, w), or (B, 1, h, w) for one per image; scaled to sum to 1 and kept
            in float32. See `operators.kernels`.
        boundary: "valid" assumes nothing about pixels outside the image: y is smaller than x by
            the kernel size minus 1, and y constrains the margin of x weakly (right for
            photographs). "reflect", "replicate" and "circular" extend the image by that rule;
            y has the size of x.
        iterations: Maximum number of iterations of a solve that has no closed form.
        tolerance: Such a solve ends when its residual is this fraction of the right-hand side.
            Squared singular values below this fraction of the largest are damped.

    Attributes:
        estimated: What was found, in words, for each kernel that was estimated from its image;
            () for kernels that were given.

    Raises:
        ValueError: The kernel is invalid or the boundary is unknown.
    """

    estimated: tuple[str, ...] = ()

    def __init__(
        self,
        kernel: Tensor,
        boundary: str = "valid",
        iterations: int = 200,
        tolerance: float = 1e-5,
    ) -> None:
        if boundary not in BOUNDARIES:
            raise ValueError(
                f"unknown boundary {boundary!r}: choose one of {', '.join(BOUNDARIES)}"
            )
        super().__init__()
        self.register_buffer("kernel", check_kernel(kernel).float())
        self.boundary = boundary
        self.iterations, self.tolerance = iterations, tolerance
        self._cached_for = self.kernel
        self._cache: SharedCache[Any] = SharedCache()

    def A(self, x: Tensor) -> Tensor:
        self._check_image(x.shape)
        if self.boundary == "circular":
            return self._filter(x, self._transfer(x.shape, x), x.shape)
        (top, bottom), (left, right) = self._margins()
        if self.boundary != "valid":
            x = F.pad(x, (left, right, top, bottom), mode=self.boundary)
        h, w = self.kernel.shape[-2:]
        size = fast_shape(x.shape)
        return self._filter(x, self._transfer(size, x), x.shape)[..., h - 1 :, w - 1 :]

    def A_adjoint(self, y: Tensor) -> Tensor:
        shape = self.image_shape(y.shape)
        if self.boundary == "circular":
            return self._filter(y, self._transfer(shape, y).conj(), shape)
        h, w = self.kernel.shape[-2:]
        y = F.pad(y, (w - 1, 0, h - 1, 0))
        x = self._filter(y, self._transfer(fast_shape(y.shape), y).conj(), y.shape)
        if self.boundary == "valid":
            return x
        for axis, (before, after) in zip((-2, -1), self._margins(), strict=True):
            x = _unpad(x, self.boundary, axis, before, after)
        return x

    def gram(self, x: Tensor) -> Tensor:
        self._check_image(x.shape)
        if self.boundary == "circular":
            return self._filter(x, self._transfer(x.shape, x).abs() ** 2, x.shape)
        if separable := self._separable(x.shape, x):
            return separable.gram(x)
        return super().gram(x)

    def block_gram(self, c: Tensor, factor: int, image_shape: torch.Size) -> Tensor:
        if separable := self._separable(image_shape, c):
            return separable.block_gram(c, factor)
        return super().block_gram(c, factor, image_shape)

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        batch, channels, height, width = measurement_shape
        if self.boundary == "valid":
            h, w = self.kernel.shape[-2:]
            height, width = height + h - 1, width + w - 1
        shape = torch.Size((batch, channels, height, width))
        self._check_image(shape)
        return shape

    def crop_margin(self, x: Tensor) -> Tensor:
        if self.boundary != "valid":
            return x
        (top, bottom), (left, right) = self._margins()
        return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]

    def select(self, images: Sequence[int]) -> "Blur":
        if len(self.kernel) == 1:
            return self
        return Blur(self.kernel[list(images)], self.boundary, self.iterations, self.tolerance)

    def pinv(self, y: Tensor) -> Tensor:
        shape = self.image_shape(y.shape)
        if separable := self._separable(shape, y):
            return separable.pinv(y)
        return self.prox(y.new_zeros(shape), y, 0.0)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        self._check_image(x.shape)
        return self.proximal(y)(x, rho)

    def proximal(self, y: Tensor) -> Callable[[Tensor, float | Tensor], Tensor]:
        shape = self.image_shape(y.shape)
        if self.boundary == "circular":
            h, data = self._transfer(shape, y), rfft2(y)
            power = h.abs() ** 2

            def prox(x: Tensor, rho: float | Tensor) -> Tensor:
                gain = h.conj() * damped_inverse(power, per_image(rho, x))
                return x + irfft2(gain * (data - h * rfft2(x)), s=shape[-2:])

            return prox
        if separable := self._separable(shape, y):
            return separable.proximal(y)
        return lambda x, rho: x + self.A_adjoint(self.solve_gram(y - self.A(x), 1.0, rho))

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        shape = self.image_shape(v.shape)
        if self.boundary != "circular" and (separable := self._separable(shape, v)):
            return separable.solve_gram(v, c, sigma2)
        if self.boundary == "circular":
            return self.precondition(v, c, sigma2)
        c, sigma2 = self._with_noise_floor(v, per_image(c, v), per_image(sigma2, v))
        gain = self._padded_gain(v, c, sigma2)
        return cg(
            lambda u: c * self._outer_gram(u) + sigma2 * u,
            v,
            iterations=self.iterations,
            preconditioner=lambda r: self._filter(r, gain, r.shape, self._padded_size(r)),
            tolerance=self.tolerance,
        )

    def _outer_gram(self, u: Tensor) -> Tensor:
        """Returns A A^T u."""
        if self.boundary != "valid":
            return self.A(self.A_adjoint(u))
        # the restriction of a convolution with the autocorrelation of the kernel
        return self._filter(u, self._padded_power(u), u.shape, self._padded_size(u))

    def precondition(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        shape = self.image_shape(v.shape)
        if self.boundary != "circular" and (separable := self._separable(shape, v)):
            return separable.solve_gram(v, c, sigma2)
        c, sigma2 = per_image(c, v), per_image(sigma2, v)
        if self.boundary == "circular":
            power = self._transfer(shape, v).abs() ** 2
            return self._filter(v, damped_inverse(c * power, sigma2), shape)
        # with less damping, the inverse amplifies border errors at the highest frequencies
        sigma2 = torch.maximum(sigma2, MIN_DAMPING * c)
        gain = self._padded_gain(v, *self._with_noise_floor(v, c, sigma2))
        return self._filter(v, gain, v.shape, self._padded_size(v))

    def _with_noise_floor(self, v: Tensor, c: Tensor, sigma2: Tensor) -> tuple[Tensor, Tensor]:
        # a smaller sigma2 needs more than the allowed iterations and amplifies rounding errors
        floor = max(self.tolerance, torch.finfo(v.dtype).eps ** 0.75)
        power = self._padded_power(v).amax((-2, -1), keepdim=True)
        return c, torch.maximum(sigma2, floor * c * power)

    def _padded_gain(self, v: Tensor, c: Tensor, sigma2: Tensor) -> Tensor:
        return 1 / (c * self._padded_power(v) + sigma2)

    def _padded_power(self, v: Tensor) -> Tensor:
        return self._transfer(self._padded_size(v), v).abs() ** 2

    def _padded_size(self, v: Tensor) -> tuple[int, int]:
        """Returns the FFT size that keeps opposite borders of measurements v apart."""
        h, w = self.kernel.shape[-2:]
        height, width = self.image_shape(v.shape)[-2:]
        return fast_shape((height + h, width + w))

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        if self.boundary != "circular":
            if separable := self._separable(image_shape, like):
                return separable.singular()
            return super().singular(image_shape, like)
        h = self._transfer(image_shape, like)
        size = h.abs()
        floor = torch.finfo(like.dtype).eps ** 0.75 * size.amax((-2, -1), keepdim=True)
        phase = torch.where(size > floor, h / size.clamp(min=1e-30), 1)
        return Singular(
            size * (size > floor),
            rfft2,
            lambda c: irfft2(c, s=image_shape[-2:]),
            lambda y: phase.conj() * rfft2(y),
        )

    def _check_image(self, shape: torch.Size) -> None:
        batch, _, h, w = self.kernel.shape
        if h > shape[-2] or w > shape[-1]:
            raise ValueError(
                f"the blur kernel must not be larger than the image: the kernel has {h}x{w} "
                f"pixels, the image {shape[-2]}x{shape[-1]}: crop the kernel, or blur less"
            )
        if batch not in (1, shape[0]):
            raise ValueError(
                f"there must be one blur kernel, or one per image: got {batch} kernels for "
                f"{shape[0]} images"
            )

    def _margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return tuple((n - 1 - n // 2, n // 2) for n in self.kernel.shape[-2:])

    def _filter(
        self, x: Tensor, gain: Tensor, shape: torch.Size, size: Sequence[int] | None = None
    ) -> Tensor:
        if size is None:
            size = shape[-2:] if self.boundary == "circular" else fast_shape(shape)
        full = irfft2(gain * rfft2(x, s=size), s=size)
        return full[..., : shape[-2], : shape[-1]]

    def _transfer(self, shape: Sequence[int], like: Tensor) -> Tensor:
        size = tuple(shape[-2:])

        def build() -> Tensor:
            k = self._kernel()
            h, w = k.shape[-2:]
            k = F.pad(k, (0, size[1] - w, 0, size[0] - h))
            if self.boundary == "circular":
                k = k.roll((-(h // 2), -(w // 2)), dims=(-2, -1))
            return rfft2(k).to(like.dtype.to_complex()).to(like.device)

        return self._cached(("transfer", size, like.dtype, like.device), build)

    def _separable(self, shape: Sequence[int], like: Tensor) -> Separable | None:
        if self.boundary == "circular" or self._column_and_row() is None:
            return None
        size = tuple(shape[-2:])

        def build() -> Separable:
            matrices = map(self._matrix, self._column_and_row(), size)
            return Separable(*matrices, like)

        return self._cached(("separable", size, like.dtype, like.device), build)

    def _matrix(self, taps: Tensor, size: int) -> Tensor:
        n = taps.shape[-1]
        valid = self.boundary == "valid"
        start, rows = (n - 1, size - n + 1) if valid else (n // 2, size)
        positions = torch.arange(rows)[:, None] + start - torch.arange(n)
        return filter_matrix(positions, taps, size, "replicate" if valid else self.boundary)

    def _kernel(self) -> Tensor:
        if self._column_and_row() is None:
            return check_kernel(self.kernel)
        column, row = self._column_and_row()
        return column[..., :, None] * row[..., None, :]

    def _column_and_row(self) -> tuple[Tensor, Tensor] | None:
        return self._cached(("parts",), lambda: separate(check_kernel(self.kernel)))

    def _cached(self, key: tuple, build: Callable) -> Any:
        if self._cached_for is not self.kernel:  # another kernel was assigned
            self._cached_for, self._cache = self.kernel, SharedCache()
        return self._cache.get(key, build)

    def _apply(self, *arguments: Any, **named: Any) -> "Blur":
        same, dtype = self._cached_for is self.kernel, self.kernel.dtype
        super()._apply(*arguments, **named)
        if same and self.kernel.dtype == dtype:  # only its device has changed
            self._cached_for = self.kernel
        return self


def _unpad(x: Tensor, boundary: str, axis: int, before: int, after: int) -> Tensor:
    """Applies the adjoint of padding along one axis."""
    n = x.shape[axis] - before - after
    first, core, last = x.split([before, n, after], dim=axis)
    core = core.clone()
    if boundary == "replicate":
        core.narrow(axis, 0, 1).add_(first.sum(dim=axis, keepdim=True))
        core.narrow(axis, n - 1, 1).add_(last.sum(dim=axis, keepdim=True))
        return core
    if before:  # an image of one pixel has no pixel 1
        core.narrow(axis, 1, before).add_(first.flip(axis))
    if after:
        core.narrow(axis, n - 1 - after, after).add_(last.flip(axis))
    return core
