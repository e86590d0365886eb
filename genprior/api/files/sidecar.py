"""What a sidecar says of one restored file: facts, doubts and quality."""

import hashlib
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genprior import __version__
from genprior.api.files.paths import OutputPaths
from genprior.core.metrics import WINDOW, finite, psnr, ssim
from genprior.inverse.base import Restoration, Solver
from genprior.io.encode import BITS
from genprior.io.images import FORMAT_OF, ImageFile, parse_image

if TYPE_CHECKING:
    from genprior.api.files.job import Job

# Share of a picture beyond which a mask is looked at twice, and masks that leave no doubt.
HALF, SAID = 0.5, ("None", "alpha", "random", "box")
METRICS = (
    f"of the picture as written, data range 1, all channels; "
    f"SSIM of {WINDOW}x{WINDOW} uniform windows"
)


def facts(
    job: "Job",
    target: OutputPaths,
    prior_sha256: str,
    device: torch.device,
    name: str,
    solver: Solver,
) -> dict[str, Any]:
    """What was asked of one file, in full: enough to do it again."""
    return {
        "task": job.task,
        "input": str(target.source),
        "input_sha256": hashlib.sha256(target.content()).hexdigest(),
        "output": str(target.output),
        "operator": {k: str(v) if isinstance(v, Path) else v for k, v in job.settings.items()},
        "noise": job.noise,
        "degrade": job.degrade,
        "prior": job.prior,
        "exemplar": None if job.exemplar is None else str(job.exemplar),
        "prior_sha256": prior_sha256,
        "solver": name,
        "solver_settings": asdict(solver),
        "samples": job.samples,
        "seed": job.seed,
        "device": str(device),
        "dtype": job.dtype,
        "tile": job.tile,
    }


def describe(result: Restoration, i: int, count: int) -> dict[str, Any]:
    """How image i of a batch of `count` was restored, JSON types."""
    about_i, about_any = f"image {i}: ", "image "
    mine = [w for w in result.warnings if w.startswith(about_i) or not w.startswith(about_any)]
    estimated = isinstance(result.noise_std, Tensor)
    return {
        **({"noise": result.noise_std[i].item()} if estimated else {}),
        "noise_estimated": estimated,
        "nfe": result.nfe,
        "products": result.products,
        "seconds": round(result.seconds / count, 3),
        "misfit": result.misfit[i].item(),
        "tiles": result.tile,
        "windows": result.windows[i],
        "warnings": [*(w.removeprefix(about_i) for w in mine), *result.reduced],
        "versions": {
            "genprior": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
    }


def doubts(job: "Job", output: Path, picture: ImageFile, missing: float) -> list[str]:
    """What may be wrong with a mask, and what the format of the output takes away.

    Arguments:
        job: What was asked for.
        output: The file of the result.
        picture: The picture that was restored.
        missing: Share of its values that are missing.
    """
    found = []
    mask = str(job.settings.get("mask")).partition("=")[0]
    if missing > HALF and mask not in SAID:
        found.append(
            f"{missing:.0%} of the picture is filled in: what is white in the mask; "
            f"--invert-mask swaps the two"
        )
    format = FORMAT_OF[output.suffix.lower()]
    exact = format != "JPEG" and BITS[format] >= picture.bits
    if job.task == "inpaint" and job.noise == 0 and not exact:
        found.append(
            f"known pixels change in a {format} file of {BITS[format]} bits: write .png or .tif"
        )
    return found


def quality(data: bytes, output: Path, truth: Tensor, y: Tensor) -> dict[str, Any]:
    """PSNR and SSIM of a written picture, and the PSNR of its measurement.

    Arguments:
        data: The picture as it is written.
        output: Its name.
        truth: What it should be, (1, C, H, W).
        y: The measurement it was made from.

    Returns:
        Decibels; None where they are infinite, which JSON has no number for.
    """
    # Not what was computed: what a user can check. How large it may be was asked of the input.
    written = parse_image(data, output, truth.shape[-2:].numel()).pixels
    truth = truth.expand_as(written)
    record: dict[str, Any] = {"psnr": finite(psnr(written, truth)), "metrics": METRICS}
    if min(truth.shape[-2:]) >= WINDOW:
        record["ssim"] = ssim(written, truth).item()
    if y.shape == truth.shape:
        record["psnr_measurement"] = finite(psnr(y.clamp(0, 1), truth))
    return record
