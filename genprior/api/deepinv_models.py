"""Operators, priors and solvers of genprior as classes of deepinv."""

from pathlib import Path
from typing import Any

import deepinv
from torch import Tensor

from genprior.api.restoration import restore
from genprior.integrations.deepinv import DenoiserModel, OperatorPhysics, Physics
from genprior.inverse.base import Solver
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser
from genprior.registry import SOLVERS


class SolverModel(deepinv.models.Reconstructor):
    """A genprior solver and prior with deepinv's interface: x_hat = model(y, physics).

    Arguments:
        solver: Solver, its name, or "auto" for the default of the physics and the prior.
        prior: Name, path or object, see `genprior.restore`.
        noise_std: Noise level in units of the images; None takes that of the physics.
        seed: Seed of all random numbers; every call draws the same ones.
        settings: Further arguments of `genprior.restore`, such as `samples` and `steps`.
    """

    def __init__(
        self, solver: str | Solver = "auto", prior: str | Path | object = "ddpm",
        noise_std: float | None = None, seed: int = 0, **settings: Any,
    ) -> None:
        super().__init__()
        self.solver, self._prior = solver, [prior]  # a list, so that it is no submodule
        self.settings = {"noise_std": noise_std, "seed": seed, **settings}

    def forward(self, y: Tensor, physics: Any, **_: Any) -> Tensor:
        """Returns restored images (B, C, H, W) of measurements y (B, ...), without gradient."""
        prior = self._prior[0]
        return restore(y, physics, prior, self.solver, **self.settings).image


def to_deepinv(
    thing: object, prior: str | Path | object | None = None, **settings: Any
) -> deepinv.physics.Physics | DenoiserModel | SolverModel:
    """Wraps an operator, a prior or a solver for deepinv.

    Arguments:
        thing: An operator; a prior that is a denoiser; or a solver, or its name.
        prior: For a solver, its prior: name, path or object. None is "ddpm".
        settings: For a solver, further arguments of `genprior.restore`: `noise_std`, `seed`,
            `samples`, `steps` and so on.

    Returns:
        A `deepinv.physics.LinearPhysics` without noise, a `deepinv.physics.Physics` if the
        operator is not linear, a `deepinv.models.Denoiser`, or a `deepinv.models.Reconstructor`.

    Raises:
        TypeError: It is none of these, or there are arguments of a solver without a solver.
    """
    if isinstance(thing, Solver) or (
        isinstance(thing, str) and (thing == "auto" or thing in SOLVERS)
    ):
        return SolverModel(thing, "ddpm" if prior is None else prior, **settings)
    if prior is not None or settings:
        raise TypeError(
            f"to_deepinv takes a prior and settings together with a solver only, and "
            f"{thing!r} is none: give make_solver(...), or one of {', '.join(SOLVERS)}"
        )
    if isinstance(thing, Operator):
        if thing.is_linear:
            return Physics(thing)
        if thing.is_differentiable:
            return OperatorPhysics(thing)
        raise TypeError(
            f"{type(thing).__name__} rounds numbers, and the physics of deepinv have a "
            f"derivative: restore it with genprior"
        )
    if isinstance(thing, Denoiser):
        return DenoiserModel(thing)
    raise TypeError(
        f"to_deepinv takes an operator, a prior that is a denoiser, or a solver; got "
        f"{type(thing).__name__}"
    )
