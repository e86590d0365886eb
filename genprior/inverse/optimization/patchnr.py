"""Patch likelihood (patchNR, EPLL): every patch of the image should be probable.

    x = argmin_x ||A x - y||^2 / (2 sigma^2) - w / p^2 sum_i log q(P_i x)

The sum is over all patches of p x p pixels of the image extended by reflection, so that every
pixel is in p^2 of them; q is any density of patches. Nearer than p - 1 to the border a pixel is
mirrored into further patches: there the law counts for more than the likelihood, up to 3.4 times
by the corners. With a Gaussian q the answer is that of a linear system.

References:
    PatchNR: Learning from Very Few Images by Patch Normalizing Flow Regularization,
        Altekrueger et al., 2023.
    From Learning Models of Natural Image Patches to Whole Image Restoration, Zoran and
        Weiss, 2011.

Differs from the authors' code:
    1. All patches count at every step, not a random share of them, so that L-BFGS can be used;
        theirs is Adam.
    2. The weight is in units of the likelihood, 1 by default; theirs is tuned to each task.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.inverse.optimization.objective import (
    Optimiser,
    check_search,
    minimise,
    squared_misfit,
)
from genprior.inverse.tikhonov import smooth_start
from genprior.operators.base import Operator
from genprior.priors.base import Density

NOISE_FLOOR = 0.001
AT_ONCE = 2**14


@dataclass(frozen=True)
class PatchNR(Solver):
    """Descent on the data term and the log-density of all patches.

    Arguments:
        steps: Evaluations of the log-density of all patches and its gradient, >= 1.
        patch: Side p of the patches that the prior is of, pixels.
        stride: Distance between neighbouring patches, 1 ... p; above 1 it is a share of them.
        weight: w > 0.
        optimiser: "lbfgs" or "adam".
        step_size: Learning rate of Adam.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Density
    stochastic = False
    summary = "one picture, for a prior of patches; 1 forward + 1 backward of all patches a step"

    steps: int = setting(60, ge=1)
    patch: int = 6
    stride: int = 1
    weight: float = setting(1.0, gt=0)
    optimiser: Optimiser = "lbfgs"
    step_size: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_search(None, self.optimiser, self.step_size)
        if self.patch < 1 or not 1 <= self.stride <= self.patch:
            raise ValueError(
                f"patch must be at least 1 and stride in 1 ... patch, got {self.patch} and "
                f"{self.stride}"
            )

    @property
    def nfe(self) -> int:
        return self.steps

    @property
    def jacobian_products(self) -> int:
        return self.steps

    @property
    def batch_multiplier(self) -> int:
        return 0

    def solve(
        self, y: Tensor, operator: Operator, prior: Density, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        variance = noise_std.clamp(min=NOISE_FLOOR) ** 2
        share = self.weight * self.stride**2 / self.patch**2

        def loss(x: Tensor) -> Tensor:
            fit = squared_misfit(x, y, operator) / 2
            return fit - variance * share * self.log_prob(x, prior)

        with torch.no_grad():
            start = smooth_start(y, operator)
            return minimise(loss, start, self.steps, self.optimiser, self.step_size)

    def log_prob(self, x: Tensor, prior: Density) -> Tensor:
        """Sum of the log-densities of all patches of images (B, C, H, W), shape (B,)."""
        p = self.patch
        fits = min(x.shape[-2:]) >= p
        x_wide = functional.pad(x, [p - 1] * 4, mode="reflect" if fits else "replicate")
        columns = functional.unfold(x_wide, p, stride=self.stride)
        patches = columns.mT.reshape(-1, x.shape[1], p, p)
        log_p = torch.cat([_checkpointed(prior, part) for part in patches.split(AT_ONCE)])
        return log_p.reshape(len(x), -1).sum(dim=1)


def _checkpointed(prior: Density, patches: Tensor) -> Tensor:
    """log_prob of some patches, whose activations are not kept for the gradient."""
    return checkpoint(prior.log_prob, patches, use_reentrant=False, preserve_rng_state=False)
