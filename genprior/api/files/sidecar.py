"""Contents of the JSON sidecar of a restored file: settings, warnings and quality metrics."""

import hashlib
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from genprior import __version__
from genprior.api.adaptation import Adaptation
from genprior.api.files.paths import OutputPaths
from genprior.core.metrics import WINDOW, finite, psnr, ssim
from genprior.inverse.base import Restoration, Solver
from genprior.io.encode import BITS
from genprior.io.images import FORMAT_OF, ImageFile, parse_image
from genprior.operators.base import Operator

if TYPE_CHECKING:
    from genprior.api.files.job import Job

# A mask that hides a larger share of the image may be inverted: the user gets a warning. Masks of
# these kinds cannot be inverted by mistake: no warning.
LARGE_SHARE, CLEAR_MASKS = 0.5, ("None", "alpha", "random", "box")
METRICS = (
    f"of the image as written, data range 1, all channels; "
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
    """Returns the settings of the restoration of one file: all that is needed to repeat it."""
    return {
        "task": job.task,
        "input": str(target.source),
        "input_sha256": hashlib.sha256(target.content()).hexdigest(),
        "output": str(target.output),
        "operator": {k: str(v) if isinstance(v, Path) else v for k, v in job.settings.items()},
        "noise": job.noise,
        "degrade": job.degrade,
        "prior": job.prior,
        **({"prior_settings": job.prior_settings} if job.prior_settings else {}),
        "exemplar": None if job.exemplar is None else str(job.exemplar),
        "prior_sha256": prior_sha256,
        "solver": name,
        "solver_settings": asdict(solver),
        "samples": job.samples,
        "seed": job.seed,
        "device": str(device),
        "dtype": job.dtype,
        "tile": job.tile,
        **({} if job.calibration is None else {"calibration": str(job.calibration)}),
    }


def describe(result: Restoration, i: int, count: int) -> dict[str, Any]:
    """Returns the cost, misfit, warnings and versions for image i of `count`, as JSON types."""
    about_i, about_any = f"image {i}: ", "image "
    mine = [w for w in result.warnings if w.startswith(about_i) or not w.startswith(about_any)]
    estimated, sizes = isinstance(result.noise_std, Tensor), result.effective_sizes
    return {
        **({"noise": result.noise_std[i].item()} if estimated else {}),
        "noise_estimated": estimated,
        **({"noise_found": result.noise_found[i]} if estimated and result.noise_found[i] else {}),
        "nfe": result.evaluations[i],
        "products": result.products,
        "seconds": round(result.seconds / count, 3),
        "misfit": result.misfit[i].item(),
        **({} if sizes is None else {"effective_sample_size": round(sizes[i].item(), 2)}),
        "tiles": result.tile,
        "windows": result.windows[i],
        "warnings": [*(_in_shell(w.removeprefix(about_i)) for w in mine), *result.reduced],
        "versions": {
            "genprior": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
    }


def _in_shell(warning: str) -> str:
    """Returns a warning with the option in place of the argument of Python."""
    return warning.replace("noise_std", "--noise")


def resampling(operator: Operator, small: Tensor) -> dict[str, str]:
    """Returns the entry of an image that was resampled after its restoration, else none.

    Arguments:
        operator: The operator.
        small: The measurement, (B, C, H, W).
    """
    if (size := getattr(operator, "output_size", None)) is None:
        return {}
    height, width = operator.image_shape(small.shape)[2:]
    return {
        "resampled": f"restored at factor {operator.factor} to {width}x{height} pixels, then "
                     f"resampled to {size[1]}x{size[0]} (width x height)"
    }


def adaptation_of(adaptation: Adaptation | None) -> dict[str, Any]:
    """Returns the entry of the adaptation of the prior, else none."""
    if adaptation is None:
        return {}
    return {"adaptation": {
        "steps": adaptation.steps, "error_before": adaptation.error_before,
        "error_after": adaptation.error_after, "used": adaptation.improved,
    }}


def compression(operator: Operator) -> dict[str, Any]:
    """Returns the entry of a JPEG that was read from the file or estimated, else none."""
    if operator.is_differentiable:
        return {}
    return {"jpeg": cast(Any, operator).described()}


def estimated_blur(operator: Operator, i: int) -> dict[str, str]:
    """Returns the entry of a blur that was estimated from image i, else none."""
    found = getattr(operator, "estimated", ())
    return {"blur_found": found[i]} if found else {}


def doubts(job: "Job", output: Path, image: ImageFile, missing: float) -> list[str]:
    """Returns warnings: a mask that may be inverted, an output format that loses precision.

    Arguments:
        job: The settings of the run.
        output: Path of the result.
        image: The image that was restored.
        missing: Share of its values that are missing, 0 to 1.
    """
    found = []
    mask = str(job.settings.get("mask")).partition("=")[0]
    if missing > LARGE_SHARE and mask not in CLEAR_MASKS:
        found.append(
            f"{missing:.0%} of the image is filled in: white pixels of the mask are filled in, "
            f"--invert-mask fills in the black ones"
        )
    format = FORMAT_OF[output.suffix.lower()]
    exact = format != "JPEG" and BITS[format] >= image.bits
    if job.task == "inpaint" and job.noise == 0 and not exact:
        found.append(
            f"known pixels change in a {format} file of {BITS[format]} bits: write .png or .tif"
        )
    return found


def quality(data: bytes, output: Path, reference: Tensor, y: Tensor) -> dict[str, Any]:
    """Returns PSNR and SSIM of a written image, and the PSNR of its measurement.

    Arguments:
        data: The bytes of the written image file.
        output: Path of the image file.
        reference: Reference image, (1, C, H, W).
        y: The measurement from which the image was restored.

    Returns:
        PSNR in dB, None if infinite: JSON cannot hold infinity.
    """
    # Metrics of the file that a user has, not of the tensor before rounding. The size limit is
    # the size of the reference: the input has passed `max_pixels` already.
    written = parse_image(data, output, reference.shape[-2:].numel()).pixels
    reference = reference.expand_as(written)
    record: dict[str, Any] = {"psnr": finite(psnr(written, reference)), "metrics": METRICS}
    if min(reference.shape[-2:]) >= WINDOW:
        record["ssim"] = ssim(written, reference).item()
    if y.shape == reference.shape:
        record["psnr_measurement"] = finite(psnr(y.clamp(0, 1), reference))
    return record
