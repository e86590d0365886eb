"""Patch-based regularisation (PatchNR, EPLL): log-density of all patches of the image.

    x = argmin_x ||A x - y||^2 / (2 sigma^2) - w / p^2 sum_i c_i log q(P_i x)

The sum is over all patches of p x p pixels of the image continued by its mirror image; q is any
density of patches. A patch inside the image has c_i = 1, one across a border 1 / 2, across a
corner 1 / 4: then every pixel counts p^2 times. With a Gaussian q the result is the solution of a
linear system.

References:
    PatchNR: Learning from Very Few Images by Patch Normalizing Flow Regularization,
        Altekrueger et al., 2023.
    From Learning Models of Natural Image Patches to Whole Image Restoration, Zoran and
        Weiss, 2011.

Differs from the authors' code:
    1. Every step uses all patches, not a random subset, so that L-BFGS can be used; the authors
        use Adam.
    2. The weight is relative to the likelihood, 1 by default; the authors tune it to each task.
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
PATCHES_PER_CALL = 2**14


@dataclass(frozen=True)
class PatchNR(Solver):
    """Minimisation of the data term minus the weighted log-density of all patches.

    Arguments:
        steps: Evaluations of the log-density of all patches and its gradient, >= 1.
        patch: Side p of the prior's patches in pixels, >= 1.
        stride: Distance between neighbouring patches in pixels, 1 ... p; above 1 only a share of
            all patches is used.
        weight: w > 0.
        optimiser: "lbfgs" or "adam".
        step_size: Learning rate of Adam.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Density
    stochastic = False
    uses = "gradient"
    summary = "one image, for a prior on patches; 1 forward + 1 backward of all patches per step"

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
        """Returns the sum of log-densities of all patches of images (B, C, H, W), shape (B,)."""
        p = self.patch
        (rows, c), (columns, d) = (self._mirrored(n, x) for n in x.shape[-2:])
        found = functional.unfold(x[:, :, rows[:, None], columns], p, stride=self.stride)
        patches = found.mT.reshape(-1, x.shape[1], p, p)
        log_p = torch.cat([_checkpointed(prior, part) for part in patches.split(PATCHES_PER_CALL)])
        return log_p.reshape(len(x), -1) @ torch.outer(c, d).flatten()

    def _mirrored(self, n: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the indices of n pixels continued by their mirror image, and patch weights."""
        p = self.patch
        first = -min(p - 1, n)  # patches that begin further outside repeat others
        position = torch.arange(first, n + p - 1, device=like.device) % (2 * n)
        start = torch.arange(first, n, self.stride, device=like.device)
        weight = torch.where((start >= 0) & (start <= n - p), 1, 0.5).to(like)
        return torch.minimum(position, 2 * n - 1 - position), weight


def _checkpointed(prior: Density, patches: Tensor) -> Tensor:
    """Returns `log_prob` of patches with gradient checkpointing."""
    return checkpoint(prior.log_prob, patches, use_reentrant=False, preserve_rng_state=False)
