"""Pairs of images and rough reconstructions of their measurements, to train pix2pix."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genprior.api.restoration import degrade
from genprior.core.errors import SettingError
from genprior.evaluation.plan import Task
from genprior.io.images import ImageFile
from genprior.operators.base import Operator
from genprior.registry import SOLVERS, lookup


@dataclass(frozen=True)
class TrainingPairs:
    """Batches of crops, each beside the rough reconstruction of its simulated measurement.

    Batch number k is a function of the seeds and k alone, so a resumed training continues with
    the batches of an uninterrupted one.

    Arguments:
        crops: Source of images, see `genprior.training.crops.Crops`.
        task: The task; its noise level is that of the measurements.
        seed: Seed of noise and random masks.

    Raises:
        SettingError: The task has a crop of its own, or noise that is not white.
        ImageError: The task does not suit crops of this size.
    """

    crops: Any
    task: Task
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task.crop is not None:
            raise SettingError("crop= in the task has no use in a training: give --crop")
        if isinstance(self.task.noise, str):
            raise SettingError(
                f"training is for white noise: give a level such as noise=0.05, not "
                f"noise={self.task.noise}"
            )
        self.batch(0, 1)

    @property
    def channels(self) -> int:
        """Channels of the images."""
        channels: int = self.crops.channels
        return channels

    @property
    def images(self) -> Any:
        """The images that crops are taken from."""
        return self.crops.images

    def digest(self) -> str:
        """Returns a digest of the images."""
        digest: str = self.crops.digest()
        return digest

    def batch(self, number: int, count: int, rows: slice | None = None) -> Tensor:
        """Returns batch `number` of `count` pairs, or some rows of it.

        Returns:
            Shape (rows, 2 C, size, size): images in [0, 1], then reconstructions, not clipped.
        """
        x, y, operator, level = self._measured(number, count, rows)
        return torch.cat((x, _solver().rough(y, operator, level)), dim=1)

    def signature(self, count: int) -> Tensor:
        """Returns the mean signature of the first `count` measurements, see `Amortized`."""
        x, _, operator, level = self._measured(0, count, None)
        return _solver().signature(operator, x.shape, level).mean(dim=0)

    def _measured(
        self, number: int, count: int, rows: slice | None
    ) -> tuple[Tensor, Tensor, Operator, Tensor]:
        """Returns images, measurements, and operator and noise levels in the unit of those."""
        x = self.crops.batch(number, count, rows)
        numbers = [number * count + row for row in range(count)[rows or slice(None)]]
        files = [ImageFile(image) for image in x.split(1)]
        operator = self.task.operator(files, numbers, self.seed)
        y = operator.mask_unmeasured(degrade(x, operator, self.task.noise, self.seed, numbers))
        operator, unit = operator.rescaled(y.shape)
        level = torch.full((len(x),), self.task.noise) / unit
        return x, y / torch.as_tensor(unit).reshape(-1, *[1] * (y.ndim - 1)), operator, level


def _solver() -> Any:
    return lookup(SOLVERS, "amortized", "solver")()
