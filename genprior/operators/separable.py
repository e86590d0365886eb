"""Separable operators, A x = R_v x R_h^T, with their exact SVD.

With R = U diag(s) V^T for the two small matrices, A = (U_v x U_h) diag(s_v s_h) (V_v x V_h)^T.
Every solve takes a few small matrix products, for any boundary rule and any image size.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from genprior.core.linalg import Singular, damped_inverse, per_image

SAME_ORDER = 0.1


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns U, s and V^T of matrices (..., m, n) in float64, s with length min(m, n).

    If M has fewer rows than columns and singular values of one order of magnitude, uses the
    eigenvectors of M M^T. This is four times faster than torch's SVD; squaring singular values
    of one order of magnitude loses no accuracy.
    """
    if matrix.shape[-2] < matrix.shape[-1]:
        gram = matrix @ matrix.mT
        factor, failed = torch.linalg.cholesky_ex(gram)
        pivots = factor.diagonal(dim1=-2, dim2=-1)
        if not failed.any() and pivots.min() > SAME_ORDER * pivots.max():
            values, vectors = torch.linalg.eigh(gram)
            s, U = values.clamp(min=0).sqrt().flip(-1), vectors.flip(-1)
            if s.min() > SAME_ORDER * s.max():
                return U, s, (U / s[..., None, :]).mT @ matrix
    return torch.linalg.svd(matrix, full_matrices=False)


def _gram(matrix: Tensor, factor: int) -> Tensor:
    """Returns (R E)^T (R E), where E repeats numbers `factor` times."""
    padded = pad(matrix, (0, -matrix.shape[-1] % factor))
    blocks = padded.unflatten(-1, (-1, factor)).sum(dim=-1)
    return blocks.mT @ blocks


class Separable:
    """Separable operator A x = R_v x R_h^T for images of one size, dtype and device.

    Arguments:
        vertical: R_v in float64 on the CPU, shape (..., h, H).
        horizontal: R_h, shape (..., w, W).
        like: A tensor with the dtype and device to compute in.
    """

    def __init__(self, vertical: Tensor, horizontal: Tensor, like: Tensor) -> None:
        self.exact = vertical, horizontal
        self.dtype, self.device = like.dtype, like.device
        self.R_v, self.R_h = self._cast(vertical), self._cast(horizontal)
        self.grams: dict[int, tuple[Tensor, ...]] = {}

    def A(self, x: Tensor) -> Tensor:
        """Returns R_v x R_h^T."""
        return self.R_v @ x @ self.R_h.mT

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Returns R_v^T y R_h."""
        return self.R_v.mT @ y @ self.R_h

    def gram(self, x: Tensor) -> Tensor:
        """Returns A^T A x."""
        return self.block_gram(x, 1)

    def block_gram(self, c: Tensor, factor: int) -> Tensor:
        """Returns E^T A^T A E c, see `Operator.block_gram`."""
        if factor not in self.grams:
            with torch.inference_mode(False):  # later calls may need gradients
                self.grams[factor] = tuple(self._cast(_gram(R, factor)) for R in self.exact)
        vertical, horizontal = self.grams[factor]
        return vertical @ c @ horizontal

    def pinv(self, y: Tensor) -> Tensor:
        """Returns A^+ y."""
        U_v, U_h, s, V_v, V_h = self.svd
        gain = s * damped_inverse(s**2, per_image(0.0, y))
        return V_v @ (gain * (U_v.mT @ y @ U_h)) @ V_h.mT

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Returns argmin_u ||A u - y||^2 + rho ||u - x||^2."""
        return self.proximal(y)(x, rho)

    def proximal(self, y: Tensor) -> Callable[[Tensor, float | Tensor], Tensor]:
        """Returns (x, rho) -> prox(x, y, rho)."""
        U_v, U_h, s, V_v, V_h = self.svd
        data, power = U_v.mT @ y @ U_h, s**2

        def prox(x: Tensor, rho: float | Tensor) -> Tensor:
            gain = s * damped_inverse(power, per_image(rho, x))
            residual = data - s * (V_v.mT @ x @ V_h)
            return x + V_v @ (gain * residual) @ V_h.mT

        return prox

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        """Returns (c A A^T + sigma2 I)^{-1} v."""
        U_v, U_h, s, _, _ = self.svd
        gain = damped_inverse(per_image(c, v) * s**2, per_image(sigma2, v))
        return U_v @ (gain * (U_v.mT @ v @ U_h)) @ U_h.mT

    def singular(self) -> Singular:
        """Returns the SVD of A; singular values at the level of rounding errors become 0."""
        U_v, U_h, s, V_v, V_h = self.svd
        floor = torch.finfo(s.dtype).eps ** 0.75 * s.amax((-2, -1), keepdim=True)
        return Singular(
            values=s * (s > floor),
            image=lambda x: V_v.mT @ x @ V_h,
            back=lambda c: V_v @ c @ V_h.mT,
            data=lambda y: U_v.mT @ y @ U_h,
        )

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """U_v, U_h, the grid s of singular values, V_v, V_h."""
        with torch.inference_mode(False):  # later calls may need gradients
            (U_v, s_v, V_v), (U_h, s_h, V_h) = map(svd, self.exact)
            s = s_v[..., :, None] * s_h[..., None, :]
            return tuple(self._cast(part) for part in (U_v, U_h, s, V_v.mT, V_h.mT))

    def _cast(self, matrix: Tensor) -> Tensor:
        # convert the dtype first: the device may not support float64
        return matrix.to(self.dtype).to(self.device)
