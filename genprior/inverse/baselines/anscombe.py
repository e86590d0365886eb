"""Anscombe transform and a denoiser of white noise, for Poisson and signal-dependent noise.

    x = f^{-1}(D(f(y)))

f stabilises the variance and f^{-1} is its exact unbiased inverse; `restore` applies both for
every method, so that the method itself is D: the mean of the denoiser over flips and turns.
The solver `posterior-mean` denoises a second time a combination of y and this x.

References:
    Optimal Inversion of the Anscombe Transformation in Low-Count Poisson Image Denoising, Mäkitalo
        and Foi, 2011.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import setting
from genprior.inverse.baselines.base import Baseline
from genprior.inverse.self_ensemble import chosen_views, mean_of_views
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class Anscombe(Baseline):
    """One pass of a denoiser over the stabilised image.

    Arguments:
        views: Number of flips and quarter turns to average over.
    """

    needs: ClassVar[type] = Denoiser
    summary: ClassVar[str] = "Anscombe transform and the denoiser of the prior"

    views: int = setting(3, ge=1, le=8)

    def suits(self, operator: Operator) -> bool:
        return operator.is_identity

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        with torch.no_grad():
            views = chosen_views(prior.symmetries, self.views)
            return mean_of_views(y, operator, prior, noise_std, views)

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        raise NotImplementedError("the method needs a prior: it is run by `solve`")
