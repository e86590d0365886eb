"""Base class of classical methods: solvers that need no prior.

`restore(y, operator, None, solver=Biharmonic())` runs one. A method that works for some operators
only declares them in `suits`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from genprior.core.errors import SettingError
from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver
from genprior.operators.base import Operator


@dataclass(frozen=True)
class Baseline(Solver):
    """A method to compare with; its fields are its settings."""

    needs: ClassVar[type] = object
    stochastic: ClassVar[bool] = False
    nfe: ClassVar[int] = 0
    stabilised_passes: ClassVar[int] = 1

    @abstractmethod
    def suits(self, operator: Operator) -> bool:
        """Whether the method supports this operator."""

    def choices(self, noise_std: float) -> Mapping[str, Sequence[Any]]:
        """Returns the settings to tune at a noise level and the values to try; none by default."""
        return {}

    def solve(
        self, y: Tensor, operator: Operator, prior: object, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        return self.estimate(y, operator, noise_std)

    def check_compatible(self, operator: Operator, prior: object, y: Tensor) -> None:
        super().check_compatible(operator, prior, y)
        if not self.suits(operator):
            raise SettingError(
                f"{getattr(self, 'name', type(self).__name__)} is not made for a measurement by "
                f"{type(operator).__name__}: choose another method"
            )

    @abstractmethod
    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        """Returns the images, shape (B, C, H, W); `noise_std` has shape (B,)."""
