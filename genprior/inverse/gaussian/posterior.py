"""The exact posterior of a Gaussian prior: its mean, or samples from it.

    mean     m + S A^T (A S A^T + sigma^2 I)^{-1} (y - A m)
    sample   x + S A^T (A S A^T + sigma^2 I)^{-1} (y - A x - sigma n),    x ~ N(m, S)

A sample is the sum of the mean, called kriging, and of an innovation, which is independent
of y.

References:
    Texture Inpainting Using Efficient Gaussian Conditional Simulation, Galerne and
    Leclaire, 2017.
    Mining Geostatistics, Journel and Huijbregts, 1978 (conditioning by kriging).

Differs from the authors' code:
    1. Any linear operator and any noise level; all known pixels count unless `border` is set.
    2. The solve is in float64, where the device has that and the operator takes it: a texture
       is so near to singular that single precision would stop at residuals up to 1e-3.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.inverse.gaussian.linear_mmse import Regression
from genprior.operators.base import Operator
from genprior.priors.base import Gaussian


@dataclass(frozen=True)
class GaussianPosterior(Solver):
    """Exact posterior mean or exact posterior samples.

    Arguments:
        mode: "sample" or "mean".
        border: 0 conditions on every known pixel. A width in pixels conditions on those that
            are that near to a hole, once the noise is off the known ones: for masks only.
            Take 3, as the paper does, for a texture that is estimated from the damaged image
            itself: all of its known pixels together are explained by their own texton, which
            knows nothing of the hole, and would fill it too smoothly.
        tolerance: Relative residual of the linear solve, where there is no direct one. In
            single precision (a physics of deepinv, an Apple GPU) it may not be reached.
        iterations: Largest number of its iterations, from each of at most 3 starts.

    Raises:
        ValueError: Another mode, or a negative border.
        ArithmeticError: When called: the linear solve ends with a relative residual above 1e-3.
    """

    needs = Gaussian
    summary = "exact posterior samples or mean, for Gaussian priors"

    mode: Literal["sample", "mean"] = "sample"
    border: int = 0
    tolerance: float = setting(1e-6, gt=0)
    iterations: int = setting(1000, ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("sample", "mean"):
            raise ValueError(f"mode must be 'sample' or 'mean', got {self.mode!r}")
        if self.border < 0:
            raise ValueError(f"border must be >= 0 pixels, got {self.border}")

    @property
    def stochastic(self) -> bool:
        return self.mode == "sample"

    @property
    def nfe(self) -> int:
        return 0

    def solve(
        self, y: Tensor, operator: Operator, prior: Gaussian, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        level = torch.zeros_like(noise_std) if self.border else noise_std
        drawn = None
        if self.mode == "sample":
            drawn = self._draw(y, operator, prior, level, generator)
        if self.border:  # draws if any image has noise, which must not change those without
            y = self._restore_known(y, operator, prior, noise_std, generator)
        if drawn is None:
            return self.kriging(y, operator, prior, level)
        x, n = drawn
        return self._condition(x, y - n, y, operator, prior, level)

    def kriging(self, y: Tensor, operator: Operator, prior: Gaussian, noise_std: Tensor) -> Tensor:
        """The posterior mean, shape (B, C, H, W); arguments as those of `solve`."""
        shape = operator.image_shape(y.shape)
        mean = prior.mean(shape).to(y.device, _precision(y, operator)).expand(shape)
        return self._condition(mean, y, y, operator, prior, noise_std)

    def innovation(
        self, y: Tensor, operator: Operator, prior: Gaussian, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        """A sample minus the posterior mean, shape (B, C, H, W); of y only the shape counts.

        With the same noise, `kriging` + `innovation` is the sample that `solve` draws.
        """
        x, n = self._draw(y, operator, prior, noise_std, generator)
        x = x - prior.mean(x.shape).to(x)
        zero = torch.zeros_like(y)
        return self._condition(x, -n, zero, operator, prior, noise_std)

    def _draw(
        self, y: Tensor, operator: Operator, prior: Gaussian, noise_std: Tensor, generator: Noise
    ) -> tuple[Tensor, Tensor]:
        shape = operator.image_shape(y.shape)
        z = generator.normal(y.new_empty(()).expand(prior.latent_shape(shape)))
        n = per_image(noise_std, y) * generator.normal(y)
        return prior.decode(z.to(_precision(y, operator)), shape), n

    def _condition(
        self,
        x: Tensor,
        target: Tensor,
        y: Tensor,
        operator: Operator,
        prior: Gaussian,
        noise_std: Tensor,
    ) -> Tensor:
        """x moved so that A x is near `target`, and equal to y where y is an exact pixel.

        It is worked out in the type of x, the result has that of y.
        """
        noise_std = noise_std.to(x)
        known = operator.mask_unmeasured(torch.ones_like(y, dtype=x.dtype))
        if self.border:
            if (noise_std > 0).any():
                raise ValueError("with a border, kriging and innovation are for noise_std 0 only")
            known = known * self._near_hole(known)
        regression = Regression(
            operator, prior, x.shape, known, noise_std**2, self.tolerance, self.iterations
        )
        x = x + regression(target.to(x) - operator.A(x))
        x = torch.where(per_image(noise_std, x) == 0, operator.keep_known(x, y.to(x)), x)
        return x.to(y)

    def _restore_known(
        self, y: Tensor, operator: Operator, prior: Gaussian, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        """Pixels y without their noise, given all of them; p(hole | y) needs only these."""
        known = operator.mask_unmeasured(torch.ones_like(y))
        if known.shape != operator.image_shape(y.shape) or known.all():
            raise ValueError("border needs a mask: leave it at 0 to take all that is known")
        if not (noise_std > 0).any():
            return y
        whole = replace(self, border=0).solve(y, operator, prior, noise_std, generator)
        return operator.A(whole)

    def _near_hole(self, known: Tensor) -> Tensor:
        width = 2 * self.border + 1
        return (max_pool2d(1 - known, width, stride=1, padding=self.border) > 0).to(known)


def _precision(y: Tensor, operator: Operator) -> torch.dtype:
    exact = operator.takes_float64 and y.device.type != "mps"
    return torch.float64 if exact else y.dtype
