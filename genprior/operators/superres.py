"""Super-resolution operator: a low-pass filter, then decimation by an integer factor."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genprior.core.linalg import Singular
from genprior.operators.cache import SharedCache
from genprior.operators.downsampling import Downsampling, check_known
from genprior.operators.filter_matrices import filter_matrix
from genprior.operators.kernels import resampling_weights
from genprior.operators.separable import Separable

KERNELS = ("bicubic", "box", "gaussian")


class SuperResolution(Downsampling):
    """Separable filter, then decimation by a factor f; all solves are exact.

    A measurement has ceil(H / f) x ceil(W / f) pixels.

    Arguments:
        factor: Integer f >= 2.
        kernel: "bicubic" (as MATLAB's imresize: Keys' cubic with a = -0.5 stretched by f, centred
            on the low-resolution pixel), "box" (average of f x f pixels) or
            "gaussian" (Gaussian blur, then pixels 0, f, 2 f ...).
        std: Standard deviation of the Gaussian in pixels; None means 0.45 f.
        boundary: Rule for pixels outside the image: "symmetric" (mirrored, the edge pixel
            twice, as MATLAB does), "reflect" (mirrored at the edge pixel) or "circular".
        image_size: Height and width of the images; None means h f x w f for measurements of
            h x w pixels.
        output_size: Height and width to which restored images are resampled afterwards, by an
            antialiased bicubic filter; None keeps their size.

    Raises:
        ValueError: A setting has another value.
    """

    def __init__(
        self,
        factor: int,
        kernel: str = "bicubic",
        std: float | None = None,
        boundary: str = "symmetric",
        image_size: tuple[int, int] | None = None,
        output_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(factor, boundary, image_size, output_size)
        check_known("kernel", kernel, KERNELS)
        if std is not None and kernel != "gaussian":
            raise ValueError(f"std is the width of the gaussian kernel, the {kernel} has no std")
        std = 0.45 * self.factor if std is None else std
        self.taps = resampling_weights(kernel, self.factor, std)
        self._cache: SharedCache[Separable] = SharedCache()

    def A(self, x: Tensor) -> Tensor:
        return self._at(x.shape, x).A(x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self._at(self.image_shape(y.shape), y).A_adjoint(y)

    def gram(self, x: Tensor) -> Tensor:
        return self._at(x.shape, x).gram(x)

    def block_gram(self, c: Tensor, factor: int, image_shape: torch.Size) -> Tensor:
        return self._at(image_shape, c).block_gram(c, factor)

    def pinv(self, y: Tensor) -> Tensor:
        return self._at(self.image_shape(y.shape), y).pinv(y)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        if self._measured_size(x.shape[-2:]) != tuple(y.shape[-2:]):
            raise ValueError(
                f"images of shape {tuple(x.shape)} have no measurements of shape {tuple(y.shape)}"
            )
        return self._at(x.shape, x).prox(x, y, rho)

    def proximal(self, y: Tensor) -> Callable[[Tensor, float | Tensor], Tensor]:
        return self._at(self.image_shape(y.shape), y).proximal(y)

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        return self._at(self.image_shape(v.shape), v).solve_gram(v, c, sigma2)

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        return self._at(image_shape, like).singular()

    def _at(self, shape: torch.Size, like: Tensor) -> Separable:
        self._check_size(shape)
        size = tuple(shape[-2:])

        def build() -> Separable:
            return Separable(*(self._matrix(n) for n in size), like)

        return self._cache.get((size, like.dtype, like.device), build)

    def _matrix(self, size: int) -> Tensor:
        offsets, weights = self.taps
        centres = self.factor * torch.arange(math.ceil(size / self.factor))
        return filter_matrix(centres[:, None] + offsets, weights, size, self.boundary)
