"""Conformal calibration: intervals per pixel with a guaranteed expected coverage.

    interval = mean +- scale w,    w^2 = (s^2 + local mean of s^2) / 2

s is the standard deviation of the samples of a pixel, and the local mean is over the 5 x 5 pixels
around it that are not known. `scale` is chosen on n photos whose reference is known, as the
smallest one with

    (n R + 1) / (n + 1) <= alpha

where R is the share of pixels outside of their interval, mean over the n photos. If a new photo
and those n are exchangeable, the expected share of its pixels outside is then at most alpha. So
the promise is one for photos on average, and not for each photo, nor for each pixel.

References:
    Conformal Risk Control, Angelopoulos et al., 2024.
    Image-to-Image Regression with Distribution-Free Uncertainty Quantification and Applications
    in Imaging, Angelopoulos et al., 2022 (scaled intervals of pixels).

Differs from the authors' code:
    1. The risk is controlled in expectation, not with a high probability.
    2. Photos beyond the range of those that calibrated get no interval. Since these count as
       covered, the promise still holds on average over all photos.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.core.records import read_json
from genprior.inverse.base import Solver
from genprior.operators.base import Operator

SCHEMA = 1
# Side of the neighbourhood of a pixel, and of the image that identifies an operator.
NEIGHBOURHOOD, TEST_SIDE = 5, 48
# Relative difference of noise levels, and difference of shares of pixels, that count as equal.
EQUAL_NOISE, EQUAL_SHARE = 0.01, 0.01
ROUNDING = 1e-9

Positive = Annotated[float, msgspec.Meta(gt=0)]
Range = tuple[float, float]


class Entry(msgspec.Struct, kw_only=True):
    """Calibration of one task.

    Arguments:
        task: The task as it was typed.
        operator: See `signature`.
        noise: Noise level in units of [0, 1].
        prior: Name of the prior.
        weights: See `weights_digest`.
        solver: The solver with its settings.
        samples: Number of samples of each photo.
        antithetic: Whether these were antithetic.
        images: Number n of photos.
        size: Height and width of the smallest photo, after cropping.
        scale: Half the width of an interval, in units of w.
        ranges: Least and largest value of each of the `features` among the photos.
    """

    task: str
    operator: str
    noise: Annotated[float, msgspec.Meta(ge=0)]
    prior: str
    weights: str
    solver: str
    samples: Annotated[int, msgspec.Meta(ge=2)]
    antithetic: bool
    images: Annotated[int, msgspec.Meta(ge=1)]
    size: tuple[int, int]
    scale: Positive
    ranges: dict[str, Range]


class Calibration(msgspec.Struct, kw_only=True):
    """Conformal calibration of a prior on several tasks.

    Arguments:
        calibration: Version of the format.
        coverage: The promised share of pixels inside their interval, in (0, 1).
        entries: One per task.
    """

    calibration: int
    coverage: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    entries: list[Entry]

    def __post_init__(self) -> None:
        if self.calibration != SCHEMA:
            raise ValueError(f"`calibration` is format {self.calibration}, not {SCHEMA}")
        numbers = [[e.noise, e.scale, *sum(e.ranges.values(), ())] for e in self.entries]
        if not all(map(math.isfinite, sum(numbers, []))):
            raise ValueError("a number is not finite")


def read_calibration(path: str | Path) -> Calibration:
    """Returns the calibration in a file of `genprior calibrate`.

    Raises:
        SettingError: The file is no such file.
    """
    try:
        return read_json(Path(path), Calibration)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SettingError(f"calibration {path} cannot be read ({reason})") from error
    except ValueError as error:
        raise SettingError(
            f"{path} is no calibration ({error}): make one with genprior calibrate"
        ) from error


def conformal_scale(ratios: Sequence[Tensor], coverage: float) -> float:
    """Returns the smallest scale with a guaranteed expected coverage.

    Arguments:
        ratios: For each photo |reference - mean| / w at its pixels, or at some of them drawn at
            random; any shapes.
        coverage: The wanted expected coverage, in (0, 1).

    Raises:
        SettingError: There are too few photos for this coverage.
    """
    count, alpha = len(ratios), 1 - coverage
    allowed = (alpha * (count + 1) - 1) / max(1, count) + ROUNDING
    if allowed < 0:
        least = math.ceil(1 / alpha - 1 - ROUNDING)
        raise SettingError(
            f"a coverage of {coverage:g} needs at least {least} photos, "
            f"got {count}: give more photos, or a smaller coverage"
        )
    ordered = [ratio.flatten().double().sort().values for ratio in ratios]

    def risk(scale: Tensor) -> float:
        shares = [1 - torch.searchsorted(r, scale, right=True).item() / len(r) for r in ordered]
        return sum(shares) / count

    low, high = torch.zeros(()).double(), torch.stack([r[-1] for r in ordered]).max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if risk(middle) <= allowed else (middle, high)
    return high.item()


def predicted_width(std: Tensor) -> Tensor:
    """Returns w for standard deviations of pixels, shape (B, C, H, W); 0 where they are 0."""
    inside = (std > 0).to(std)

    def local(v: Tensor) -> Tensor:
        return avg_pool2d(v, NEIGHBOURHOOD, stride=1, padding=NEIGHBOURHOOD // 2)

    mean = local(std.square()) / local(inside).clamp(min=1e-6)
    return inside * ((std.square() + mean) / 2).sqrt()


def features(
    operator: Operator, y: Tensor, width: Tensor, misfit: Tensor
) -> list[dict[str, float]]:
    """Returns the numbers of each photo that must lie in the range of those that calibrated.

    They are the mean width w; the misfit; for holes the share of missing pixels, and the share of
    these whose eight neighbours are missing, too.

    Arguments:
        operator, y: The operator and the measurements, (B, ...).
        width: See `predicted_width`, shape (B, C, H, W).
        misfit: Shape (B,); its sign is not used.
    """
    counted = (width > 0).flatten(1).sum(dim=1).clamp(min=1)
    found = {"width": width.flatten(1).sum(dim=1) / counted, "misfit": misfit}
    if operator.is_pixel_mask and not operator.is_identity:
        missing = 1 - operator.mask_unmeasured(torch.ones_like(y))
        inner = 1 - max_pool2d(1 - missing, 3, stride=1, padding=1)
        total = missing.flatten(1).sum(dim=1)
        found["missing"] = total / missing[0].numel()
        found["inner"] = inner.flatten(1).sum(dim=1) / total.clamp(min=1)
        found.pop("misfit")
    return [{name: value[i].item() for name, value in found.items()} for i in range(len(y))]


def signature(operator: Operator, image_shape: Sequence[int]) -> str:
    """Returns a text that is equal for equal operators: identity, mask, or a digest.

    The digest is that of the measurement of two bright pixels, one of which is in a corner.

    Arguments:
        operator: The operator of one image, or the same one for several images.
        image_shape: Shape (B, C, H, W) of its images.
    """
    if operator.is_identity:
        return "identity"
    if operator.is_pixel_mask:
        return "mask"
    one, channels = operator.select([0]), image_shape[1]
    for height, width in ((TEST_SIDE, TEST_SIDE), tuple(image_shape[2:])):
        x = torch.zeros(1, channels, height, width)
        x[..., 0, 0] = x[..., height // 2, width // 2] = 1
        try:
            y = one.A(_on_device_of(one, x)).cpu()
        except (ValueError, RuntimeError):  # it takes images of one size only
            continue
        values = (1e4 * torch.view_as_real(y) if y.is_complex() else 1e4 * y).round().int()
        return f"{tuple(y.shape[1:])} {_digest(values)}"
    return "unknown"


def weights_digest(prior: object) -> str:
    """Returns a digest of the parameters and buffers of a prior."""
    if not isinstance(prior, nn.Module):
        return type(prior).__name__
    tensors = sorted(prior.state_dict().items())
    return hashlib.sha256(
        "".join(f"{name} {_digest(value.detach().cpu())}" for name, value in tensors).encode()
    ).hexdigest()[:16]


def find_entries(
    calibration: Calibration, operator: str, noise_std: float, weights: str, solver: Solver,
    samples: int, antithetic: bool,
) -> tuple[list[Entry], str]:
    """Returns the entries for a restoration, and what was not calibrated if there is none.

    Arguments:
        calibration: The calibration.
        operator: See `signature`.
        noise_std: Noise level.
        weights: See `weights_digest`.
        solver, samples, antithetic: How the samples are drawn.
    """
    kept = calibration.entries
    tests: dict[str, Callable[[Entry], bool]] = {
        "this prior": lambda e: e.weights == weights,
        "this operator": lambda e: e.operator == operator,
        f"noise {noise_std:.4g}": lambda e: abs(e.noise - noise_std) <= EQUAL_NOISE * e.noise,
        f"{solver}": lambda e: e.solver == str(solver),
        f"{samples} samples": lambda e: e.samples == samples,
        f"{'antithetic' if antithetic else 'independent'} samples":
            lambda e: e.antithetic == antithetic,
    }
    for name, test in tests.items():
        entries = [entry for entry in kept if test(entry)]
        if not entries:
            known = ", ".join(dict.fromkeys(
                f"{e.task} (noise {e.noise:.4g}, {e.samples} samples)" for e in kept
            ))
            return [], f"{name} was not calibrated, but {known or 'nothing'}"
        kept = entries
    return kept, ""


def intervals(
    calibration: Calibration, y: Tensor, operator: Operator, noise_std: Tensor, prior: object,
    solvers: Sequence[Solver], samples: int, antithetic: bool, mean: Tensor, std: Tensor,
    misfit: Tensor,
) -> tuple[Tensor, Tensor, list[str]]:
    """Returns the ends of the calibrated intervals of a restoration.

    Arguments:
        calibration: The calibration.
        y, operator, noise_std, prior, samples, antithetic: The restoration.
        solvers: The solver of each image.
        mean, std: Those of the samples, shape (B, C, H, W).
        misfit: Shape (B,).

    Returns:
        Lower and upper ends, shape (B, C, H, W), NaN for images without intervals; and for each
        image why it has none, or an empty text.
    """
    width = predicted_width(std)
    shape, weights = operator.image_shape(y.shape), weights_digest(prior)
    found = features(operator, y, width, misfit.to(width))
    scales, reasons = [], []
    for i, level in enumerate(noise_std.tolist()):
        kind = signature(operator.select([i]), shape)
        entries, reason = find_entries(
            calibration, kind, level, weights, solvers[i], samples, antithetic
        )
        beyond = [outside(entry, found[i]) for entry in entries]
        scale = next((e.scale for e, why in zip(entries, beyond, strict=True) if not why), None)
        scales.append(math.nan if scale is None else scale)
        reasons.append("" if scale is not None else reason or beyond[0])
    half = per_image(torch.tensor(scales), width) * width
    return mean - half, mean + half, reasons


def outside(entry: Entry, found: dict[str, float]) -> str:
    """Returns why a photo is beyond the range of those that calibrated; empty if it is not."""
    for name, value in found.items():
        low, high = entry.ranges.get(name, (math.inf, -math.inf))
        slack = EQUAL_SHARE if name in ("missing", "inner") else 0
        if not low - slack <= value <= high + slack:
            words = {"width": "the predicted width", "misfit": "the misfit",
                     "missing": "the share of missing pixels",
                     "inner": "the share of missing pixels without a known neighbour"}
            return (
                f"{words.get(name, name)} is {value:.3g}, beyond the {low:.3g} to {high:.3g} of "
                f"the photos that calibrated"
            )
    return ""


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()[:16]


def _on_device_of(operator: Operator, x: Tensor) -> Tensor:
    buffers = list(operator.buffers()) if isinstance(operator, nn.Module) else []
    return x.to(buffers[0].device) if buffers else x
