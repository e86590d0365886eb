"""Exact posterior mean and samples for a Gaussian prior.

    mean     m + S A^T (A S A^T + sigma^2 I)^{-1} (y - A m)
    sample   x + S A^T (A S A^T + sigma^2 I)^{-1} (y - A x - sigma n),    x ~ N(m, S)

A sample is the posterior mean (kriging) plus an innovation that is independent of y.

References:
    Texture Inpainting Using Efficient Gaussian Conditional Simulation, Galerne and
    Leclaire, 2017.
    Mining Geostatistics, Journel and Huijbregts, 1978 (conditioning by kriging).

Differs from the authors' code:
    1. Any linear operator and any noise level; all known pixels are used unless `border` is set.
    2. The solve is in float64 if the device and the operator support it: the covariance of a
       texture is so close to singular that float32 would stop at residuals up to 1e-3.
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

# Numbers of the images that are computed at once; a solve in float64 holds about 20 times as many.
NUMBERS = 2**24


@dataclass(frozen=True)
class GaussianPosterior(Solver):
    """Exact posterior mean or exact posterior samples.

    Arguments:
        mode: "sample" or "mean".
        border: 0 conditions on every known pixel. A positive width in pixels conditions only on
            known pixels within that distance of a hole, after denoising them; for masks only.
            Use 3, as in the paper, for a texture that is estimated from the damaged image
            itself: that texton alone explains all known pixels together, so that the hole would
            be filled too smoothly.
        tolerance: Relative residual at which an iterative linear solve stops. In float32 (a
            physics of deepinv, an Apple GPU) it may not be reached.
        iterations: Maximum iterations of the solve per start; there are at most 3 starts.

    Raises:
        ValueError: The mode is unknown, or the border is negative.
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
        noise = None
        if self.mode == "sample":
            noise = self._noise(y, operator, prior, level, generator)
        # It draws noise if any image is noisy: after `_noise`, noise-free images do not change.
        if self.border:
            y = self._restore_known(y, operator, prior, noise_std, generator)
        rows = list(range(len(y)))
        size = max(1, NUMBERS // operator.image_shape(y.shape)[1:].numel())
        if len(rows) <= size:
            return self._answer(y, operator, prior, level, noise)
        answers = []
        for part in (rows[k : k + size] for k in range(0, len(rows), size)):
            share = noise and tuple(numbers[part] for numbers in noise)
            some = operator.select(part)
            answers.append(self._answer(y[part], some, prior, level[part], share))
        return torch.cat(answers)

    def _answer(
        self,
        y: Tensor,
        operator: Operator,
        prior: Gaussian,
        noise_std: Tensor,
        noise: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Returns the samples of the given noise, or the posterior means for None."""
        if noise is None:
            return self.kriging(y, operator, prior, noise_std)
        z, n = noise
        x = prior.decode(z.to(_precision(y, operator)), operator.image_shape(y.shape))
        return self._condition(x, y - n, y, operator, prior, noise_std)

    def kriging(self, y: Tensor, operator: Operator, prior: Gaussian, noise_std: Tensor) -> Tensor:
        """Returns the posterior mean, shape (B, C, H, W); for the arguments see `solve`."""
        shape = operator.image_shape(y.shape)
        mean = prior.mean(shape).to(y.device, _precision(y, operator)).expand(shape)
        return self._condition(mean, y, y, operator, prior, noise_std)

    def innovation(
        self, y: Tensor, operator: Operator, prior: Gaussian, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        """Returns a sample minus the posterior mean, (B, C, H, W); only the shape of y matters.

        With the same noise, `kriging` + `innovation` is the sample that `solve` draws.
        """
        z, n = self._noise(y, operator, prior, noise_std, generator)
        x = prior.decode(z.to(_precision(y, operator)), operator.image_shape(y.shape))
        x = x - prior.mean(x.shape).to(x)
        zero = torch.zeros_like(y)
        return self._condition(x, -n, zero, operator, prior, noise_std)

    def _noise(
        self, y: Tensor, operator: Operator, prior: Gaussian, noise_std: Tensor, generator: Noise
    ) -> tuple[Tensor, Tensor]:
        """Returns the latents of a draw of the prior, and the noise of the measurements."""
        shape = operator.image_shape(y.shape)
        z = generator.normal(y.new_empty(()).expand(prior.latent_shape(shape)))
        return z, per_image(noise_std, y) * generator.normal(y)

    def _condition(
        self,
        x: Tensor,
        target: Tensor,
        y: Tensor,
        operator: Operator,
        prior: Gaussian,
        noise_std: Tensor,
    ) -> Tensor:
        """Moves x so that A x is close to `target`, and equal to y at noise-free known pixels.

        It computes in the type of x; the result has the type of y.
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
        """Returns the known pixels without noise: a posterior sample, or the posterior mean.

        The hole depends on y only through these pixels.
        """
        known = operator.mask_unmeasured(torch.ones_like(y))
        if known.shape != operator.image_shape(y.shape) or known.all():
            raise ValueError("border needs a mask with holes: set it to 0 to use all known pixels")
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
