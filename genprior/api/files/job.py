"""Settings for the restoration of files."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genprior.api.texture_fill import Fill
from genprior.inverse.base import Quality
from genprior.inverse.execution.executor import Tile
from genprior.io.images import ImageFile
from genprior.io.limits import MAX_PIXELS
from genprior.operators.base import Operator

MakeOperator = Callable[[list[ImageFile], bool], Operator]


@dataclass(frozen=True)
class Job:
    """Settings shared by all files of one restoration run.

    Arguments:
        task: Name of the task, for the sidecar.
        operator: Builds the operator for a batch of images of one size; the flag says that the
            images are clean.
        settings: Settings of the operator as the user typed them, for the sidecar.
        noise: Noise level in units of [0, 1], "auto" to estimate it for each file, or the text of
            a law, see `core.noise_text`.
        save: Names of the extra outputs besides the restored image, see `save_options`.
        degrade: The files are clean: simulate their measurements, restore these and compare.
        opaque: The alpha channel of the files was the hole: results are written without it.
        max_pixels: Larger images are refused, also as exemplar.
        exemplar: Image from which the prior "texture" is estimated; None estimates it from the
            known part of each file (inpainting only).
        fill: How holes are filled, see `restore`.
        adapt: Seconds (a float) or steps (an int) of the adaptation of the prior to each file, see
            `adapt_prior`; None adapts none.
        calibration: File of `genprior calibrate`, see `restore`.
        prior_settings: Settings of the prior, see `load_prior`.
        prior, solver, steps, quality, samples, seed, device, dtype, tile: See `restore`.
    """

    task: str
    operator: MakeOperator
    settings: dict[str, Any]
    noise: float | str
    save: tuple[str, ...] = ()
    degrade: bool = False
    opaque: bool = False
    max_pixels: int = MAX_PIXELS
    exemplar: Path | None = None
    prior: str = "ddpm"
    prior_settings: dict[str, Any] = field(default_factory=dict)
    solver: str = "auto"
    steps: int | Literal["auto"] = "auto"
    quality: Quality = "default"
    samples: int = 1
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    tile: Tile = "auto"
    fill: Fill | None = None
    adapt: float | int | None = None
    calibration: Path | None = None

    @property
    def finds_compression(self) -> bool:
        """Whether the compression of a file may be undone instead of its noise."""
        chosen = self.solver != "auto" or self.calibration is not None
        return self.task == "denoise" and self.noise == "auto" and not (self.degrade or chosen)
