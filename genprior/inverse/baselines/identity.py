"""Identity baseline: the measurement itself as the image estimate."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator


@dataclass(frozen=True)
class Measurement(Baseline):
    """Returns the measurement unchanged, if it is an image of the same size."""

    supports_nonlinear: ClassVar[bool] = True
    ignores_noise: ClassVar[bool] = True
    summary: ClassVar[str] = "the measurement itself"

    def suits(self, operator: Operator) -> bool:
        return operator.is_identity or not operator.is_linear

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        return y
