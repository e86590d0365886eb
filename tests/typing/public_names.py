"""What a type checker sees of the public names; mypy checks this file, nothing runs it."""

from pathlib import Path
from typing import assert_type

from torch import Tensor

import genprior
from genprior.inverse.base import Solver
from genprior.operators.base import Operator


def use(y: Tensor) -> None:
    operator = genprior.make_operator("superres", factor=2)
    assert_type(operator, Operator)
    solver = genprior.make_solver("dps", steps=10)
    assert_type(solver, Solver)
    result = genprior.restore(y, operator, prior="ddpm", solver=solver, noise_std=0.01, samples=2)
    assert_type(result, genprior.Restoration)
    assert_type(result.misfit, Tensor)
    assert_type(genprior.sample(Path("run"), count=2), Tensor)
    print(genprior.restor)  # type: ignore[attr-defined]
    genprior.restore(y)  # type: ignore[call-arg]
    genprior.restore(y, operator, samples="many")  # type: ignore[arg-type]
