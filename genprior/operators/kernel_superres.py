"""Super-resolution operator with any blur kernel: a convolution, then decimation.

    y = S k * x,    S takes pixels 0, f, 2 f ... of each axis

With a circular boundary and sides that are multiples of the factor f, A A^T is a convolution of
small images: with g its transfer function, every solve is exact,

    g(q) = sum of |k^(q + j)|^2 over the f^2 aliases j of q / f^2.

Else the solves are conjugate gradients with this convolution as preconditioner.

References:
    Fast Single Image Super-Resolution Using a New Analytical Solution for l2-l2 Problems, Zhao,
        Wei, Basarab, Dobigeon, Kouamé and Tourneret, 2016.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft2, rfft2

from genprior.core.errors import SettingError
from genprior.core.linalg import cg, damped_inverse, fast_shape, per_image
from genprior.operators.cache import SharedCache
from genprior.operators.downsampling import Downsampling
from genprior.operators.filter_matrices import fold_index
from genprior.operators.kernels import check_kernel

# Smallest damping of a solve by conjugate gradients, relative to the largest eigenvalue.
MIN_DAMPING = {torch.float32: 1e-5, torch.float64: 1e-12}


class KernelSuperResolution(Downsampling):
    """Convolution with a kernel, then decimation by a factor f.

    A measurement has ceil(H / f) x ceil(W / f) pixels.

    Arguments:
        factor: Integer f >= 2.
        kernel: Shape (h, w); scaled to sum to 1 and kept in float32. Its pixel
            (h // 2, w // 2) lies on the pixels that remain.
        boundary: Rule for pixels outside the image: "symmetric", "reflect" or "circular", see
            `SuperResolution`.
        image_size: Height and width of the images; None means h f x w f for measurements of
            h x w pixels.
        output_size: Height and width to which restored images are resampled afterwards, by an
            antialiased bicubic filter; None keeps their size.
        iterations: Maximum number of iterations of a solve that has no closed form.
        tolerance: Such a solve ends when its residual is this fraction of the right-hand side.

    Raises:
        ValueError: A setting has another value, or the kernel is invalid.
    """

    def __init__(
        self,
        factor: int,
        kernel: Tensor,
        boundary: str = "symmetric",
        image_size: tuple[int, int] | None = None,
        output_size: tuple[int, int] | None = None,
        iterations: int = 200,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(factor, boundary, image_size, output_size)
        kernel = check_kernel(kernel)
        if len(kernel) != 1:
            raise SettingError(f"super-resolution takes one kernel (h, w), got {len(kernel)}")
        self.register_buffer("kernel", kernel.float())
        self.iterations, self.tolerance = iterations, tolerance
        self._cache: SharedCache[Any] = SharedCache()

    def A(self, x: Tensor) -> Tensor:
        self._check_image(x.shape)
        rows, columns = self._folded(x.shape, x)
        size = (len(rows), len(columns))
        full = self._convolved(x[..., rows, :][..., columns], self._transfer(size, x), size)
        h, w = self.kernel.shape[-2:]
        return full[..., h - 1 : size[0] : self.factor, w - 1 : size[1] : self.factor]

    def A_adjoint(self, y: Tensor) -> Tensor:
        shape = self.image_shape(y.shape)
        rows, columns = self._folded(shape, y)
        size = (len(rows), len(columns))
        h, w = self.kernel.shape[-2:]
        full = y.new_zeros(*y.shape[:2], *size)
        full[..., h - 1 :: self.factor, w - 1 :: self.factor] = y
        full = self._convolved(full, self._transfer(size, y).conj(), size)
        x = full.new_zeros(*shape[:3], size[1]).index_add_(2, rows, full)
        return full.new_zeros(shape).index_add_(3, columns, x)

    def pinv(self, y: Tensor) -> Tensor:
        return self.A_adjoint(self.solve_gram(y, 1.0, 0.0))

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        return x + self.A_adjoint(self.solve_gram(y - self.A(x), 1.0, rho))

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        if self._is_periodic(self.image_shape(v.shape)):
            return self.precondition(v, c, sigma2)
        c, sigma2 = per_image(c, v), per_image(sigma2, v)
        # less damping takes more iterations than allowed, and amplifies rounding errors
        least = MIN_DAMPING[v.dtype] * c * self._power(v).amax((-2, -1), keepdim=True)
        sigma2 = sigma2.maximum(least)
        return cg(
            lambda u: c * self.A(self.A_adjoint(u)) + sigma2 * u,
            v,
            iterations=self.iterations,
            preconditioner=lambda r: self.precondition(r, c, sigma2),
            tolerance=self.tolerance,
        )

    def precondition(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        gain = damped_inverse(per_image(c, v) * self._power(v), per_image(sigma2, v))
        return irfft2(gain * rfft2(v), s=v.shape[-2:])

    def _is_periodic(self, shape: torch.Size) -> bool:
        whole = all(side % self.factor == 0 for side in shape[-2:])
        return self.boundary == "circular" and whole

    def _check_image(self, shape: torch.Size) -> None:
        self._check_size(shape)
        h, w = self.kernel.shape[-2:]
        if h > shape[-2] or w > shape[-1]:
            raise SettingError(
                f"the blur kernel must not be larger than the image: the kernel has {h}x{w} "
                f"pixels, the image {shape[-2]}x{shape[-1]}: crop the kernel"
            )

    def _folded(self, shape: torch.Size, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the rows and the columns of the image with its margin."""
        folded = []
        for side, n in zip(shape[-2:], self.kernel.shape[-2:], strict=True):
            positions = torch.arange(-(n - 1 - n // 2), side + n // 2)
            folded.append(fold_index(positions, side, self.boundary).to(like.device))
        return folded[0], folded[1]

    def _convolved(self, x: Tensor, transfer: Tensor, size: tuple[int, int]) -> Tensor:
        fast = fast_shape(size)
        return irfft2(transfer * rfft2(x, s=fast), s=fast)[..., : size[0], : size[1]]

    def _transfer(self, size: tuple[int, int], like: Tensor) -> Tensor:
        """Returns the transfer function of the kernel, its pixel (0, 0) at the origin."""
        fast = fast_shape(size)

        def build() -> Tensor:
            k = self.kernel.cpu().double()
            k = F.pad(k, (0, fast[1] - k.shape[-1], 0, fast[0] - k.shape[-2]))
            return rfft2(k).to(like.dtype.to_complex()).to(like.device)

        return self._cache.get(("transfer", fast, like.dtype, like.device), build)

    def _power(self, v: Tensor) -> Tensor:
        """Returns the eigenvalues of A A^T for a periodic image, in the layout of `rfft2`."""
        size = tuple(v.shape[-2:])

        def build() -> Tensor:
            f, k = self.factor, self.kernel.cpu().double()
            h, w = k.shape[-2:]
            c = F.conv2d(k, k, padding=(h - 1, w - 1))[0, 0]  # autocorrelation
            down, across = (torch.arange(-(n - 1), n) for n in (h, w))
            down, across = down[down % f == 0], across[across % f == 0]
            c = c[down + h - 1][:, across + w - 1]
            wrapped = c.new_zeros(size[0] * size[1])
            where = (down // f % size[0])[:, None] * size[1] + across // f % size[1]
            wrapped.index_add_(0, where.flatten(), c.flatten())
            g = rfft2(wrapped.reshape(1, 1, *size)).real.clamp(min=0)
            return g.to(like_dtype).to(v.device)

        like_dtype = v.dtype
        return self._cache.get(("power", size, v.dtype, v.device), build)
