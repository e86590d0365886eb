"""Adapters of the samplers of deepinv and azula to the tasks of `problem`."""

from collections.abc import Callable
from typing import Any

import deepinv
import torch
from problem import STEPS, Sampler, Task
from torch import Tensor

from genprior.priors.base import Denoiser


def reconstructor(make: Callable[[Callable], Any]) -> Sampler:
    """Returns a sampler that runs a reconstructor of deepinv in float32.

    Arguments:
        make: Builds the reconstructor from a denoiser.
    """

    def run(task: Task, prior: Denoiser, seed: int) -> Tensor:
        def denoiser(x: Tensor, sigma: float | Tensor, *_: Any, **__: Any) -> Tensor:
            return prior.denoise(x, torch.as_tensor(sigma).to(x).flatten())

        y = task.y.float()
        return make(denoiser)(y.expand(task.chains, *y.shape[1:]).clone(), task.physics)

    return run


def guided(fidelity: type, steps: int = STEPS) -> Sampler:
    """Returns the reverse diffusion of deepinv with a guidance term and ancestral steps."""
    d, times = deepinv.sampling, torch.linspace(1, 0, steps + 1).double()
    sde, solver = d.VariancePreservingDiffusion(alpha=1.0), d.DDPMSolver(times)
    return reconstructor(lambda D: d.PosteriorDiffusion(fidelity(), D, sde, solver))


def azula(
    method: str, batch: int | None = None, eta: float = 0.0, steps: int = STEPS
) -> Sampler:
    """Returns a sampler of azula, which works in the range [-1, 1].

    Arguments:
        method: Name of the method.
        batch: Samples drawn at a time; None draws all together.
        eta: Stochasticity, for "pgdm".
        steps: Steps of the sampler.
    """

    def run(task: Task, prior: Denoiser, seed: int) -> Tensor:
        from azula.denoise import Denoiser, DiracPosterior
        from azula.guidance import diffpir, dps, mmps, pgdm, tmpd
        from azula.linalg.covariance import IsotropicCovariance
        from azula.noise import VPSchedule
        from azula.sample import DDPMSampler

        class Exact(Denoiser):
            schedule = VPSchedule()

            def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> DiracPosterior:
                alpha, sigma = self.schedule(t)
                x = (x_t / alpha + 1).reshape(-1, *task.shape) / 2
                return DiracPosterior(2 * prior.denoise(x, sigma / alpha / 2).flatten(1) - 1)

        A, pinv, variance = task.matrix, torch.linalg.pinv(task.matrix), (2 * task.noise) ** 2
        together = batch or task.chains
        y = (2 * task.y.flatten() - A.sum(dim=1)).expand(together, -1)
        problem = (Exact(), y, lambda x: x @ A.mT)
        options = {"steps": steps, "silent": True, "dtype": torch.float64}
        if method == "dps":
            sampler = dps.DPSSampler(*problem, **options)
        elif method == "pgdm":
            sampler = pgdm.PGDMSampler(*problem, lambda v: v @ pinv.mT, eta=eta, **options)
        else:
            guide, noise = {
                "mmps": (mmps.MMPSDenoiser, IsotropicCovariance(variance)),
                "tmpd": (tmpd.TMPDenoiser, variance),
                "diffpir": (diffpir.DiffPIRDenoiser, variance),
            }[method]
            sampler = DDPMSampler(guide(*problem, noise), **options)
        start = sampler.init((task.chains, A.shape[1]), dtype=torch.float64)
        return (torch.cat([sampler(x) for x in start.split(together)]) + 1) / 2

    return run
