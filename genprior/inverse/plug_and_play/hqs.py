"""Half-quadratic splitting with a denoiser (DPIR): a deterministic point estimate.

    u_k = argmin_u ||A u - y||^2 + rho_k ||u - x_k||^2,   rho_k = lambda_k sigma^2 / sigma_k^2
    d_k = D(u_k, sigma_k)
    x_{k+1} = d_k + r_k (d_k - u_k) + m_k (d_k - d_{k-1}),   and d_k at the last

lambda_k and r_k are constants, m_k = 0 and sigma_k falls geometrically, or all of them are those
of a trained schedule (`schedules`), for some of which D is a network that was trained with them.

References:
    Plug-and-Play Image Restoration with Deep Denoiser Prior, Zhang et al., 2021.
    On the Douglas-Rachford Splitting Method and the Proximal Point Algorithm, Eckstein and
        Bertsekas, 1992 (over-relaxation, r).
    Some Methods of Speeding up the Convergence of Iteration Methods, Polyak, 1964 (momentum, m).
    Algorithm Unrolling, Monga, Li and Eldar, 2021 (networks trained within the iterations).

Differs from the authors' code:
    1. The initial image is the Tikhonov solution (`smooth_start`), for every operator. If A is
        not linear, it is that of A linearised, and u is found by its proximal map. If the data
        have several minima, as the magnitudes of a Fourier transform, each start of the operator
        is refined, and the image that fits the data best is returned. An inpainting prior
        instead fills the holes with its posterior mean, averaged over flips and rotations, which
        takes up to a third of the evaluations.
    2. Each step flips or rotates the image, as in the authors' code, also for inpainting; only
        the symmetries of the prior are used.
    3. Steps are over-relaxed (the authors: r = 0). On crops of training photos r = 1 gave
        0.1 dB more than r = 0 on random inpainting and SR x 4, and 0.4 dB less on a box.
    4. `coupling`, r and the noise levels were tuned on crops of training photos; the authors
        use 0.23, 0, and 49/255 down to the noise level. Noise-free data need lower levels: a
        start at 15/255 instead of 25/255 gave 1 dB on a box and 0.3 dB with 90 % of the pixels
        missing. A start from the posterior mean needs still lower levels. PSNR on four such
        crops, from the posterior mean (from `smooth_start`): 33.03 dB (32.85) with half of the
        pixels missing, 26.06 (25.55) with 90 % missing, 33.4 (32.3) on a box. The posterior
        mean alone had 32.84, 25.92 and 33.45.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.core.pull_push import density
from genprior.core.random_streams import Noise
from genprior.core.symmetries import turn, turn_back
from genprior.inverse.base import Quality, Solver, misfit, setting
from genprior.inverse.plug_and_play.schedules import TRAINED, Step
from genprior.inverse.self_ensemble import chosen_views, mean_of_views, sees_holes
from genprior.inverse.tikhonov import smooth_start
from genprior.operators.base import Convolution, Operator
from genprior.priors.base import Denoiser

NOISE_FLOOR = 0.001
# For clipped images with noise; tuned on five crops of training photos, factor 2, noise 0.025, 23
# to 88 % clipped. Where most is clipped, a higher first level lost against the start: gain in dB
# of these settings (of the same with 25/255 and 12 steps), mean and least, pivot 1/2 +1.4 and +0.4
# (+0.4 and -0.9), pivot 0 +1.2 and -0.1 (+1.9 and -1.4).
CLIPPED = {"coupling": 0.4, "sigma_max": 0.05}
# For operators with several minima; chosen among six settings on six crops of training photos,
# phase retrieval at noise 0.05, 27.2 dB on average from one start each.
MAGNITUDES = {"coupling": 0.25, "sigma_max": 0.2, "sigma_min": 0.02}
# For noisy blur and downsampling: 0 to 0.1 dB better than 24 steps down to 2/255.
HIGHER = {"steps": 24, "sigma_min": 5 / 255}
# Settings by kind of measurement and quality, from the curves of PSNR against evaluations on
# training photos in benchmarks/results/steps.md. Kinds without a curve keep the defaults.
SUITED: dict[str, dict[Quality, dict[str, Any]]] = {
    "hole": {  # the posterior mean: refined, holes got worse in texture and better in smooth parts
        "fast": {"steps": 1, "views": 1},
        "default": {"steps": 4, "views": 4},
        "best": {"steps": 8, "views": 8},
    },
    "scattered holes": {"fast": {"steps": 6}, "default": {"steps": 10}, "best": {}},
    "noisy blur": {"fast": {"steps": 8, "sigma_min": 6 / 255}, "default": HIGHER,
                   "best": HIGHER},
    "noisy downsampling": {"fast": {"steps": 8, "sigma_min": 4 / 255}, "default": HIGHER,
                           "best": HIGHER},
    "noisy downsampling by 2": {"fast": {"steps": 8, "sigma_min": 4 / 255},
                                "default": {"steps": 16, "sigma_min": 4 / 255}, "best": HIGHER},
    "blur": {"fast": {"steps": 8}, "default": {}, "best": {}},
    "downsampling": {"fast": {"steps": 8}, "default": {}, "best": {}},
    "noisy clipping": {"fast": {"steps": 4, **CLIPPED}, "default": {"steps": 8, **CLIPPED},
                       "best": {"steps": 8, **CLIPPED}},
    "magnitudes": {"fast": {"steps": 8, "starts": 2, **MAGNITUDES},
                   "default": {"steps": 16, **MAGNITUDES},
                   "best": {"starts": 8, **MAGNITUDES}},
}
# Trained schedules in place of these settings, for priors that `suits_schedules`.
SCHEDULED: dict[str, dict[Quality, str]] = {
    "noisy blur": {"fast": "blur-4", "default": "blur-8", "best": "blur-8"},
    "noisy downsampling": {"fast": "downsampling-4", "default": "downsampling-8",
                           "best": "downsampling-16"},
    "noisy downsampling by 2": {"fast": "downsampling-4", "default": "downsampling-8",
                                "best": "downsampling-16"},
}
BLURRED: dict[Quality, str] = {
    "fast": "unrolled-blur-4", "default": "unrolled-blur-8", "best": "unrolled-blur-8",
}
REDUCED: dict[Quality, str] = {
    "fast": "unrolled-downsampling-4", "default": "unrolled-downsampling-6",
    "best": "unrolled-downsampling-6",
}
WIDE: dict[Quality, str] = {"default": "unrolled-hole-3", "best": "unrolled-hole-3"}
# The same, for priors with a network that was trained within the steps (`is_unrolled`). Qualities
# that are not listed have the settings above.
UNROLLED: dict[str, dict[Quality, str]] = {
    "noisy blur": BLURRED,
    "noisy downsampling by 2": REDUCED,
    "noisy downsampling": REDUCED,
    "downsampling": REDUCED,
    "scattered holes": {"default": "unrolled-scattered-4", "best": "unrolled-scattered-4"},
    "noisy scattered holes": {"fast": "unrolled-scattered-4"},
    "hole": WIDE,
    "noisy hole": {"fast": "unrolled-hole-3"} | WIDE,
}
# Iterations of the Tikhonov start at each scale: with 4, 8 and 20 the results for blur and
# super-resolution differed by less than 0.02 dB (six training photos).
START = 8
# Holes are scattered if a known pixel touches at least this share of the unknown ones.
SCATTERED_SHARE = 0.5


@dataclass(frozen=True)
class HQS(Solver):
    """Half-quadratic splitting with a denoiser.

    Noise levels are those of the denoiser, in image units, > 0.

    Arguments:
        steps: Network evaluations.
        coupling: lambda of the paper, > 0.
        sigma_max: First noise level for noisy data without a posterior mean to start from; the
            noise level of the data is used if it is larger.
        sigma_min: Last noise level for noisy data.
        relaxation: r, >= 0.
        exact_max: First noise level for noise-free data without a posterior mean to start from.
        exact_min: Last noise level for noise-free data.
        informed_max: First noise level if the start is a posterior mean; the noise level of the
            data is used if it is larger.
        views: Evaluations of that posterior mean, each of another flip or quarter turn; None is
            a third of the steps, at most 8.
        starts: Starts that are refined if the data have several minima; each takes `steps`.
        schedule: Name of a trained schedule, a key of `TRAINED`, in place of all settings above
            but `starts`.
    """

    needs = Denoiser
    stochastic = False
    uses = "prox"
    summary = "one image, point estimate"

    steps: int = setting(24, ge=1)
    coupling: float = setting(0.1, gt=0)
    sigma_max: float = setting(25 / 255, gt=0)
    sigma_min: float = setting(2 / 255, gt=0)
    relaxation: float = setting(1.0, ge=0)
    exact_max: float = setting(15 / 255, gt=0)
    exact_min: float = setting(1 / 255, gt=0)
    informed_max: float = setting(4 / 255, gt=0)
    views: int | None = setting(None, ge=0, le=8)
    starts: int = setting(4, ge=1)
    schedule: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule not in (None, *TRAINED):
            raise SettingError(
                f"schedule must be one of {', '.join(TRAINED)}, got {self.schedule!r}"
            )

    @property
    def nfe(self) -> int:
        return self.steps if self.schedule is None else TRAINED[self.schedule].nfe

    def evaluations(self, prior: object, operator: Operator | None = None) -> int:
        several = operator is not None and operator.has_several_minima
        return self.nfe * (self.starts if several else 1)

    def suited(
        self, y: Tensor, operator: Operator, prior: object, noise_std: float, quality: Quality
    ) -> "HQS":
        kind = kind_of(y, operator, prior, noise_std)
        if isinstance(prior, Denoiser):
            tables = ((UNROLLED, prior.is_unrolled), (SCHEDULED, prior.suits_schedules))
            for table, suits in tables:
                if suits and quality in table.get(kind, {}):
                    return replace(self, schedule=table[kind][quality])
        return replace(self, **SUITED.get(kind, {}).get(quality, {}))

    def solve(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        with torch.no_grad():
            arguments = (
                self._steps(operator, prior, noise_std), noise_std, operator.proximal(y),
                self._network(prior), prior.symmetries,
            )
            starts = self.starting_images(y, operator, prior, noise_std)
            x = refined(starts[0], *arguments)
            for start in starts[1:]:
                other = refined(start, *arguments)
                fits = misfit(other, y, operator, noise_std) < misfit(x, y, operator, noise_std)
                x = torch.where(fits.reshape(-1, 1, 1, 1), other, x)
        return x

    def starting_images(
        self, y: Tensor, operator: Operator, prior: Denoiser, noise_std: Tensor
    ) -> list[Tensor]:
        """Returns the images (B, C, H, W) that are refined; arguments are those of `solve`."""
        if views := self._views(operator, prior):
            return [mean_of_views(y, operator, prior, noise_std, views)]
        if operator.has_several_minima:
            return [operator.expansion_point(y, k) for k in range(self.starts)]
        if operator.is_differentiable:
            return [smooth_start(y, operator, START)]
        return [operator.pinv(y)]

    def _steps(self, operator: Operator, prior: Denoiser, noise_std: Tensor) -> list[Step]:
        if self.schedule is not None:
            kernel = operator.kernel if isinstance(operator, Convolution) else None
            return TRAINED[self.schedule].steps(noise_std, kernel)
        exact = noise_std == 0
        first = noise_std.clamp(min=self.sigma_max).masked_fill(exact, self.exact_max)
        views = self._views(operator, prior)
        if views:
            first = noise_std.clamp(min=self.informed_max)
        last = torch.full_like(first, self.sigma_min).masked_fill(exact, self.exact_min)
        count = self.steps - len(views)
        ratios = [k / max(count - 1, 1) for k in range(count)]
        return [
            Step(first * (last / first) ** ratio, self.coupling, self.relaxation)
            for ratio in ratios
        ]

    def _network(self, prior: Denoiser) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the denoiser of the steps."""
        if self.schedule is None or not TRAINED[self.schedule].unrolled:
            return prior.denoise
        if not prior.is_unrolled:
            raise SettingError(
                f"schedule {self.schedule!r} needs a prior with a network for unrolled steps, as "
                f"ddpm: choose one of {', '.join(k for k, v in TRAINED.items() if not v.unrolled)}"
            )
        return prior.denoise_unrolled

    def _views(self, operator: Operator, prior: Denoiser) -> Sequence[int]:
        """Returns the views whose posterior means are averaged for the start."""
        if not sees_holes(prior, operator):
            return []
        views = self.views if self.schedule is None else TRAINED[self.schedule].views
        if views is None:
            return prior.symmetries[: self.steps // 3]
        return chosen_views(prior.symmetries, min(views, self.nfe))


def refined(
    x: Tensor, steps: Sequence[Step], noise_std: Tensor, fit: Callable[[Tensor, Tensor], Tensor],
    denoise: Callable[[Tensor, Tensor], Tensor], symmetries: Sequence[int],
) -> Tensor:
    """Returns the last image of the steps.

    Arguments:
        x: Starting images, shape (B, C, H, W); returned as they are if there are no steps.
        steps: Steps.
        noise_std: Noise levels of the data, in image units, shape (B,).
        fit: The proximal map of the data, see `Operator.proximal`.
        denoise: Maps images and noise levels (B,) to denoised images.
        symmetries: Flips and turns that it allows, of which each step takes the next.
    """
    variance = noise_std.clamp(min=NOISE_FLOOR) ** 2
    before = x_hat = x
    for k, step in enumerate(steps):
        u = fit(x, step.coupling * variance / step.sigma**2)
        symmetry = symmetries[k % len(symmetries)]
        x_hat = turn_back(denoise(turn(u, symmetry), step.sigma), symmetry)
        x = x_hat + per_image(step.relaxation, x) * (x_hat - u)
        if k > 0:
            x = x + per_image(step.momentum, x) * (x_hat - before)
        before = x_hat
    return x_hat


def kind_of(y: Tensor, operator: Operator, prior: object, noise_std: float) -> str:
    """Returns the kind of a measurement, on which the number of evaluations depends.

    Arguments:
        y: One measurement, shape (1, ...).
        operator: Its operator.
        prior: The prior.
        noise_std: Noise level of the measurement.

    Returns:
        A key of `SUITED`, or "other" if there are no curves for such a measurement.
    """
    noise = "noisy " if noise_std > 0 else ""
    if isinstance(prior, Denoiser) and sees_holes(prior, operator):
        known = operator.mask_unmeasured(torch.ones_like(y))
        return noise + ("scattered holes" if is_scattered(known) else "hole")
    if operator.has_several_minima:
        return "magnitudes"
    if operator.is_pointwise and not operator.is_linear:
        return noise + "clipping"
    if isinstance(operator, Convolution):
        return noise + "blur"
    if not operator.is_downsampling:
        return "other"
    halved = noise and operator.image_shape(y.shape)[-1] <= 2 * y.shape[-1]
    return noise + ("downsampling by 2" if halved else "downsampling")


def is_scattered(known: Tensor) -> bool:
    """Whether a known pixel touches at least half of the unknown ones, also diagonally.

    Arguments:
        known: 1 where a pixel is known, else 0; shape (B, C, H, W), equal in all channels.
    """
    unknown = known[:, :1] == 0
    touching = unknown & (density(known[:, :1]) > 0)
    return bool(touching.sum() >= SCATTERED_SHARE * unknown.sum())
