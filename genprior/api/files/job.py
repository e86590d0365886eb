"""Settings of the restoration of files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genprior.inverse.execution.executor import Tile
from genprior.io.images import ImageFile
from genprior.io.limits import MAX_PIXELS
from genprior.operators.base import Operator

MakeOperator = Callable[[list[ImageFile], bool], Operator]


@dataclass(frozen=True)
class Job:
    """What to do with files.

    Arguments:
        task: Name of the task, for the record.
        operator: Builds the operator of a batch of pictures of one size; the flag says that
            they are clean.
        settings: Settings of the operator as they are typed, for the record.
        noise: Noise level in units of [0, 1], or "auto" to estimate that of each file.
        save: What to save besides the picture, see `saves`.
        degrade: The files are clean: measure them first, then compare.
        opaque: The alpha of the files was the hole: it does not go into the result.
        max_pixels: Larger pictures are refused, the exemplar too.
        exemplar: Picture that the prior "texture" is estimated from; None to inpaint each
            file with the texture of its own known part.
        prior, solver, steps, samples, seed, device, dtype, tile: See `restore`.
    """

    task: str
    operator: MakeOperator
    settings: dict[str, Any]
    noise: float | Literal["auto"]
    save: tuple[str, ...] = ()
    degrade: bool = False
    opaque: bool = False
    max_pixels: int = MAX_PIXELS
    exemplar: Path | None = None
    prior: str = "ddpm"
    solver: str = "auto"
    steps: int | None = None
    samples: int = 1
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    tile: Tile = "auto"
