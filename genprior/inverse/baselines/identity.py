"""Identity baseline: the measurement itself as the image estimate.

For a measurement by an operator that is not linear it is an image without a prior, from which
iterative solvers start.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator


@dataclass(frozen=True)
class Measurement(Baseline):
    """Returns the measurement unchanged, if it is an image of the same size.

    If A is not linear and is differentiable it is `expansion_point`, the scene of an over-exposed
    photo with lifted highlights or the image of alternating reflections, in [0, 1].
    """

    uses: ClassVar[Literal["adjoint", "gradient", "prox"]] = "prox"
    ignores_noise: ClassVar[bool] = True
    summary: ClassVar[str] = "the measurement itself"

    def suits(self, operator: Operator) -> bool:
        return operator.is_identity or not operator.is_linear

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        if operator.is_linear or not operator.is_differentiable:
            return y
        return operator.expansion_point(y).clamp(0, 1)
