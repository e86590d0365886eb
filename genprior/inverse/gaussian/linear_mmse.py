"""Linear minimum mean square error (LMMSE) estimate: regression of an image on a measurement.

    S A^T (A S A^T + sigma^2 I)^{-1} r,    S = F F^T + floor^2 I

There are five algorithms with the same result; the first three are direct, the last two use
conjugate gradients:

    frequencies  A and S are circular: one small matrix per frequency
    pixels       S is stationary and A keeps few pixels: one dense matrix for those pixels
    numbers      A A^T is not c I and r has few entries: A S A^T, built column by column
    latents      A A^T = c I and w has fewer entries than r:
                 (F^T A^T A F + delta I) w = F^T A^T r,    delta = c floor^2 + sigma^2,
                 F w + floor^2 A^T (r - A F w) / delta
    measurement  (A S A^T + sigma^2 I) psi = r,    S A^T psi

If A A^T = c I, as for a mask, the preconditioner is the inverse for the unmasked image. For a blur
it is the inverse for the circular blur on a larger torus.

References:
    Texture Inpainting Using Efficient Gaussian Conditional Simulation, Galerne and
    Leclaire, 2017.

Differs from the authors' code:
    1. Any noise level, and any linear operator.
    2. Preconditioned conjugate gradients on the system itself, not on its normal equations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genprior.core.linalg import demand_solved, inner, per_image, solve
from genprior.inverse.gaussian.dense import pseudo_inverse, solve_pixels
from genprior.inverse.gaussian.fourier import convolution, gram_inverse, stationary_preconditioner
from genprior.operators.base import Operator
from genprior.priors.base import Factor, Gaussian

# The latent system is better conditioned, so that its residual understates the image error.
LATENT_TOLERANCE = 0.1
# A dense matrix of this many rows is solved in two seconds: by Cholesky, or by
# diagonalisation if it is singular.
PIXELS, SINGULAR_PIXELS = 5000, 1500
NUMBERS = 2000
COLUMN_PIXELS = 2**22


@dataclass(frozen=True)
class Regression:
    """Linear regression of images on the known entries of measurements by one operator.

    Arguments:
        operator: A.
        prior: The Gaussian prior with covariance S.
        image_shape: Shape (B, C, H, W) of the images.
        known: 1 for the known entries of a measurement, 0 for the others, shape (B, ...).
        sigma2: Variance of the noise, shape (B,), >= 0.
        tolerance: Relative residual at which conjugate gradients stop.
        iterations: Most iterations per start, of at most 3 starts.
    """

    operator: Operator
    prior: Gaussian
    image_shape: torch.Size
    known: Tensor
    sigma2: Tensor
    tolerance: float
    iterations: int

    def __call__(self, r: Tensor) -> Tensor:
        """Returns the estimated images, shape (B, C, H, W), for residuals r, shape (B, ...).

        Raises:
            ArithmeticError: Conjugate gradients end with a relative residual above 1e-3.
        """
        r, factor = self.known * r, self.prior.factor(self.image_shape, r)
        torus = None if factor.transfer is None else factor.transfer.shape[-2:]
        if torus == self.image_shape[-2:] and self.known.all():
            circular = convolution(self.operator, self._probe(self.image_shape), r)
            if circular is not None:
                psi = gram_inverse(*circular, factor, self.sigma2)(r)
                return self.prior.cov(self._adjoint(psi))
        if torus is not None and self._few_pixels(r, factor):
            psi = solve_pixels(r, self.known.expand_as(r), factor, self.sigma2)
            return self.prior.cov(self._adjoint(psi))
        scale = self._row_scale()
        if scale is None and self._few_measurements(r):
            return self.prior.cov(self._adjoint(self._solve_directly(r)))
        if not (self.sigma2 + factor.floor**2 > 0).all():
            # singular: without a preconditioner the iterates stay in the range of the matrix;
            # a residual of mere rounding errors is not in that range, so it is set to 0
            size = r.abs().flatten(1).amax(dim=1)
            r = r * per_image(size > 100 * torch.finfo(r.dtype).eps, r)
            return self.prior.cov(self._adjoint(self._solve(r, None)))
        if scale is None:
            preconditioner = None
            if torus is not None and r.ndim == 4 and 2 * r.shape[-1] > self.image_shape[-1]:
                preconditioner = stationary_preconditioner(self._adjoint, r, factor, self.sigma2)
            return self.prior.cov(self._adjoint(self._solve(r, preconditioner)))
        delta = self.sigma2 + scale * factor.floor**2
        known = self.known.expand_as(r).flatten(1).sum(dim=1).min()
        if torch.Size(factor.shape).numel() < known:
            return self._from_latents(r, factor, scale, delta)
        psi = self._solve(r, lambda v: self._A(factor.inverse(self._adjoint(v), delta / scale)))
        return self.prior.cov(self._adjoint(psi))

    def _A(self, x: Tensor) -> Tensor:
        return self.known * self.operator.A(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator.A_adjoint(self.known * y)

    def _gram(self, v: Tensor) -> Tensor:
        return self._A(self.prior.cov(self._adjoint(v))) + per_image(self.sigma2, v) * v

    def _solve(self, r: Tensor, preconditioner: Callable[[Tensor], Tensor] | None) -> Tensor:
        return solve(
            self._gram,
            r,
            iterations=self.iterations,
            preconditioner=preconditioner,
            tolerance=self.tolerance,
        )

    def _from_latents(self, r: Tensor, factor: Factor, scale: float, delta: Tensor) -> Tensor:
        def adjoint(v: Tensor) -> Tensor:
            return factor.adjoint(self._adjoint(v))

        w = solve(
            lambda w: adjoint(self._A(factor.apply(w))) + per_image(delta, w) * w,
            adjoint(r),
            iterations=self.iterations,
            preconditioner=lambda w: factor.gram_inverse(w, delta / scale),
            tolerance=LATENT_TOLERANCE * self.tolerance,
        )
        x = factor.apply(w)
        rest = (r - self._A(x)) / per_image(delta, r)
        return x + factor.floor**2 * self._adjoint(rest)

    def _few_pixels(self, r: Tensor, factor: Factor) -> bool:
        """Whether A keeps pixels unchanged, and so few that a dense solve is the fastest."""
        if r.shape != self.image_shape or r.dtype != torch.float64:
            return False
        definite = (self.sigma2 + factor.floor**2 > 0).all()
        count = self.known.expand_as(r).flatten(1).sum(dim=1).max()
        few = min(PIXELS if definite else SINGULAR_PIXELS, r[0].numel() // 4)
        v = self.known * self._probe(r.shape)
        return bool(count <= few) and torch.equal(self._adjoint(v), v)

    def _few_measurements(self, r: Tensor) -> bool:
        """Whether all images share one matrix that is small enough to be diagonalised."""
        few = r.dtype == torch.float64 and r[0].numel() <= NUMBERS
        same = self.operator.select([0]) is self.operator
        return few and same and bool((self.known == self.known[:1]).all())

    def _solve_directly(self, r: Tensor) -> Tensor:
        """Returns (A S A^T + sigma^2 I)^{-1} r, or the pseudo-inverse of a singular matrix."""
        one = replace(self, known=self.known[:1])
        units = torch.eye(r[0].numel(), dtype=r.dtype, device=r.device)
        units = units.reshape(-1, *r.shape[1:])
        # columns at once, each of which is an image
        chunk = max(1, COLUMN_PIXELS // self.image_shape[-2:].numel())
        columns = [one._A(self.prior.cov(one._adjoint(u))) for u in units.split(chunk)]
        gram = torch.cat(columns).flatten(1)
        psi = pseudo_inverse((gram + gram.mT) / 2)(r.flatten(1), self.sigma2).reshape(r.shape)
        r2, rest = inner(r, r), r - self._gram(psi)
        demand_solved(inner(rest, rest) / torch.where(r2 > 0, r2, 1), "at best", self.tolerance)
        return psi

    def _row_scale(self) -> float | None:
        """Returns c if A A^T = c I on the known entries, else None."""
        v = self.known * self._probe(self.known.shape)
        image = self._A(self._adjoint(v))
        scale = (inner(v, image).sum() / inner(v, v).sum()).item()
        error = (image - scale * v).norm() / image.norm()
        return scale if error < 1000 * torch.finfo(v.dtype).eps else None

    def _probe(self, shape: torch.Size) -> Tensor:
        probe = torch.randn(shape[1:], generator=torch.Generator().manual_seed(0))
        return probe.to(self.known).expand(shape)
