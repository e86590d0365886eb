"""Posterior mean of noisy images and of images with holes, by a self-ensembled denoiser.

    y = keep (x + sigma n),    x = E[x | y] = D(y, sigma, keep)

D is averaged over the flips and quarter turns that are symmetries of the prior. Images with
correlated noise are denoised at several scales (`multi_scale`), which approximates the posterior
mean.

References:
    An Empirical Bayes Approach to Statistics, Robbins, 1956 (Tweedie's formula).
    Seven Ways to Improve Example-Based Single Image Super Resolution, Timofte et al., 2016
        (self-ensemble).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.random_streams import Noise
from genprior.inverse.base import Quality, Solver
from genprior.inverse.plug_and_play.multi_scale import FACTORS, multi_scale_mean
from genprior.inverse.self_ensemble import chosen_views, mean_of_views, sees_holes
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

# Views per quality; chosen on training photos (benchmarks/results/steps.md).
VIEWS: dict[Quality, int] = {"fast": 1, "default": 3, "best": 8}


@dataclass(frozen=True)
class PosteriorMean(Solver):
    """Posterior mean of a noisy image, or of an image with holes if the prior is an inpainter.

    If there are both holes and noise, the inpainting network also denoises the known pixels;
    `hqs` starts from this image and refines it with the better denoiser.

    Arguments:
        views: Number of flips and quarter turns to average over, 1 to 8; at most the number of
            symmetries of the prior.
    """

    needs = Denoiser
    stochastic = False
    takes_any_noise = True
    summary = "one image, denoising and inpainting: E[x | y] averaged over flips and rotations"

    views: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.views <= 8:
            raise ValueError(f"views must be between 1 and 8, got {self.views}")

    @property
    def nfe(self) -> int:
        return self.views

    def evaluations(self, prior: object, operator: Operator | None = None) -> int:
        scales = len(FACTORS) if operator is not None and operator.is_noisy_image else 1
        return scales * len(getattr(prior, "symmetries", range(8))[: self.views])

    def suited(
        self, y: Tensor, operator: Operator, prior: object, noise_std: float, quality: Quality
    ) -> "PosteriorMean":
        return replace(self, views=VIEWS[quality])

    def check_compatible(self, operator: Operator, prior: object, y: Tensor) -> None:
        super().check_compatible(operator, prior, y)
        if operator.is_noisy_image:
            return
        if not operator.is_mask:
            raise SettingError(
                "solver 'posterior-mean' only denoises and fills holes: choose another solver "
                "for this measurement"
            )
        if not (operator.is_identity or sees_holes(prior, operator)):
            raise SettingError(
                "solver 'posterior-mean' only denoises with this prior, which cannot fill "
                "holes: choose another solver, or a prior that was trained on images with holes"
            )

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        with torch.no_grad():
            views = chosen_views(prior.symmetries, self.views)
            if operator.is_noisy_image:
                return multi_scale_mean(y, operator, prior, views)
            return mean_of_views(y, operator, prior, noise_std, views)
