"""Blind estimation of a uniform blur, and a test whether a given kernel fits an image.

Kernels of three families (Gaussian, linear motion, disc) are compared by the likelihood of the
image's power spectrum (`inverse.blind.spectral_likelihood`). A kernel of any shape is estimated
from the edges (`inverse.blind.sparse_gradients`). It replaces the best of the families if it is
clearly more likely.

The likelihood also shows a wrong kernel, which the misfit of a restoration does not: the restored
image adapts to it, and the residual stays white. If the same kernel, turned or resized, is clearly
more likely, the kernel is doubtful.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genprior.core.devices import without_autocast
from genprior.core.errors import SettingError
from genprior.inverse.blind.sparse_gradients import centred, estimate_free_kernel
from genprior.inverse.blind.spectral_likelihood import Parametric, SpectralLikelihood
from genprior.io.arrays import to_tensor
from genprior.operators.base import Convolution, Operator
from genprior.operators.kernels import disc_kernel, gaussian_kernel, motion_kernel

Kind = Literal["any", "gaussian", "motion", "disc", "free"]
FAMILIES = ("gaussian", "motion", "disc")
KINDS = ("any", *FAMILIES, "free")
# Default largest width of the kernel, and the smallest that can be asked for, in pixels.
SIZE, SMALLEST_SIZE = 31, 3
# Sides of an image per width of the kernel, at least; larger images are represented by a window.
SIDES, WINDOW = 3, 384
# A kernel of any shape must be more likely than the best of a family by this, per frequency.
CLEARLY = 0.03
# A kernel is doubtful if it would be more likely by this, per frequency, turned or resized; or if
# the best kernel of a family is by that: this is more, since a family may fit the anisotropy of an
# image. Right kernels had at most 0.00 (eight on one training photo) and 0.07 (eight on each of
# six), and two motions that were 10 degrees off had 1.1 and 1.3.
DOUBTFUL, DOUBTFUL_FAMILY = 0.05, 0.12
# Smaller images do not show enough of their spectrum, and larger kernels take too long to check.
LEAST_SIDE, MOST_WEIGHTS = 96, 1024
# Turns in degrees and factors of size of the kernels that a given kernel is compared with.
TURNS = (-40, -25, -15, -8, 8, 15, 25, 40, 90)
SCALES = (0.5, 0.7, 0.85, 1.2, 1.4, 2.0)
# A given kernel is compared with families at least up to this width in pixels.
LARGEST_COMPARED = 15
MISFIT = "the blur kernel does not fit the spectrum of the image"
REMEDY = "check the kernel, or let it be estimated"
# Standard deviation of the values below which an image has no structure.
FLAT = 1e-3


@dataclass(frozen=True)
class KernelEstimate:
    """Estimated blur kernels of a batch.

    Arguments:
        kernel: Non-negative, sum 1, odd sides; shape (B, 1, h, w), for `make_operator("deblur",
            kernel=...)`.
        found: The kernel of each image in words, such as "motion of 15.0 px at 30.0 degrees".
        log_likelihood: Log-likelihood of the spectrum of each image per frequency, (B,).
    """

    kernel: Tensor
    found: tuple[str, ...]
    log_likelihood: Tensor


@torch.inference_mode(False)
@without_autocast
def estimate_kernel(
    image: Any, kind: Kind = "any", size: int | None = None, noise_std: float | None = None
) -> KernelEstimate:
    """Estimates the uniform blur of images from the images alone.

    It takes a few seconds for each image, and no prior. Motion along a line, Gaussian blur and
    defocus are found to a few per cent on most photographs. Curved motion is often missed where
    fine texture covers the image (docs/blind-deblurring.md).

    Arguments:
        image: Blurred images: tensor (B, C, H, W), numpy array (H, W, C) or PIL image; see
            `to_tensor`.
        kind: "gaussian", "motion" (along a line) or "disc" (defocus); "free" is a kernel of any
            shape, and "any" the most likely of all of them.
        size: Largest height and width of the kernel in pixels, >= 3; at most a third of the
            image. None is 31, or less for small images.
        noise_std: Level of white noise in units of [0, 1], >= 0; None estimates it from the
            highest frequencies.

    Returns:
        The kernels, float32 on the device of the image.

    Raises:
        SettingError: An argument is out of its range, an image is too small for the kernel, or
            it has no structure.
    """
    y, _ = to_tensor(image)
    if kind not in KINDS:
        raise SettingError(f"unknown kind of blur {kind!r}: choose one of {', '.join(KINDS)}")
    if size is None:
        size = max(min(SIZE, min(y.shape[-2:]) // SIDES), SMALLEST_SIZE)
    if isinstance(size, bool) or not isinstance(size, int) or size < SMALLEST_SIZE:
        raise SettingError(
            f"the size of the kernel must be a whole number of pixels >= {SMALLEST_SIZE}, "
            f"got {size!r}"
        )
    if noise_std is not None and not 0 <= noise_std < math.inf:
        raise SettingError(f"noise_std must be a number >= 0 or None, got {noise_std!r}")
    size -= 1 - size % 2
    check_size(y, size)
    level = None if noise_std is None else noise_std / y.shape[1] ** 0.5  # of the mean channel
    estimates = [
        _of_image(grey, kind, size, level) for grey in _grey(y.detach().float()).split(1)
    ]
    kernels = [kernel for kernel, _, _ in estimates]
    height, width = (max(k.shape[axis] for k in kernels) for axis in (-2, -1))
    return KernelEstimate(
        torch.cat([_padded(k.float(), height, width) for k in kernels]).to(y.device),
        tuple(text for _, text, _ in estimates),
        torch.tensor([score for _, _, score in estimates]),
    )


def check_size(y: Tensor, size: int) -> None:
    """Checks that images, (B, C, H, W), are large enough to estimate a kernel of a size.

    Raises:
        SettingError: They are not.
    """
    height, width = y.shape[-2:]
    if SIDES * size > min(height, width):
        least = min(height, width) // SIDES
        fits = f"choose a size of at most {least}" if least >= SMALLEST_SIZE else (
            "give the kernel"
        )
        raise SettingError(
            f"a kernel of up to {size}x{size} pixels can be estimated from an image of at least "
            f"{SIDES * size}x{SIDES * size}, got {width}x{height} (width x height): {fits}"
        )


def kernel_doubts(y: Tensor, operator: Operator, sigma: Tensor) -> tuple[str, ...]:
    """Returns warnings about blur kernels that do not fit their images, one sentence each.

    Arguments:
        y: Measurements, shape (B, C, H, W).
        operator: Their operator; there are no doubts about one that is not a blur.
        sigma: Noise levels, shape (B,).
    """
    if not isinstance(operator, Convolution):
        return ()
    kernels = operator.kernel.expand(len(y), *operator.kernel.shape[1:])
    found = []
    for i, (grey, k, level) in enumerate(zip(_grey(y), kernels, sigma.tolist(), strict=True)):
        side = min(grey.shape[-2:])
        if (
            side < max(SIDES * max(k.shape[-2:]), LEAST_SIDE)
            or k.count_nonzero() > MOST_WEIGHTS
            or grey.std() < FLAT
        ):
            continue
        likelihood = SpectralLikelihood(_window(grey[None]), level / y.shape[1] ** 0.5)
        text = _better_kernel(likelihood, k[0])
        found += [f"image {i}: {text}"] if text else []
    return tuple(found)


def _better_kernel(likelihood: SpectralLikelihood, kernel: Tensor) -> str:
    """Returns what would make a kernel clearly more likely, in words; "" if nothing would."""
    given = likelihood.of_kernel(kernel).item()
    turns = [*TURNS, *[0] * len(SCALES)]
    scales = [1.0] * len(TURNS) + list(SCALES)
    scores = likelihood.of_kernel(kernel, turns, scales)
    best = int(scores.argmax())
    change = f"turned by {turns[best]} degrees" if turns[best] else f"scaled by {scales[best]}"
    family = _best_of(likelihood, FAMILIES, max(*kernel.shape, LARGEST_COMPARED))
    excess = scores[best].item() - given - DOUBTFUL
    excess_of_family = family.log_likelihood - given - DOUBTFUL_FAMILY
    if max(excess, excess_of_family) <= 0:
        return ""
    if excess > excess_of_family:
        return f"{MISFIT}: {change}, it would be more likely: {REMEDY}"
    return f"{MISFIT}: {_words(family)} is more likely: {REMEDY}"


def _best_of(likelihood: SpectralLikelihood, families: Sequence[str], size: int) -> Parametric:
    return max(
        (likelihood.best(family, size) for family in families),
        key=lambda found: found.log_likelihood,
    )


def _of_image(
    grey: Tensor, kind: Kind, size: int, noise_std: float | None
) -> tuple[Tensor, str, float]:
    """Returns the kernel (1, 1, h, w), its description, and its log-likelihood."""
    if grey.std() < FLAT:
        raise SettingError("the image has no structure that shows its blur: give the kernel")
    y = _window(grey)
    likelihood = SpectralLikelihood(y, noise_std)
    families = FAMILIES if kind == "any" else tuple(k for k in FAMILIES if k == kind)
    best = _best_of(likelihood, families, size) if families else None
    if kind in FAMILIES and best is not None:
        return _built(best), _words(best), best.log_likelihood
    free = estimate_free_kernel(y, size)
    score = likelihood.of_kernel(free[0, 0]).item()
    if best is None or score > best.log_likelihood + CLEARLY:
        free = _trimmed(free)
        return free, f"a kernel of {free.shape[-1]}x{free.shape[-2]} px", score
    return _built(best), _words(best), best.log_likelihood


def _built(found: Parametric) -> Tensor:
    build: dict[str, Callable[..., Tensor]] = {
        "gaussian": gaussian_kernel, "motion": motion_kernel, "disc": disc_kernel,
    }
    return build[found.kind](*found.parameters)[None, None]


def _words(found: Parametric) -> str:
    if found.kind == "motion":
        return "motion of {:.1f} px at {:.1f} degrees".format(*found.parameters)
    if found.kind == "disc":
        return "a disc of radius {:.2f} px".format(*found.parameters)
    return "a Gaussian of standard deviation {:.2f} px".format(*found.parameters)


def _grey(y: Tensor) -> Tensor:
    return y.mean(dim=1, keepdim=True)


def _window(grey: Tensor) -> Tensor:
    """Returns the window of a large image, (1, 1, H, W), with the strongest gradients."""
    height, width = (min(n, WINDOW) for n in grey.shape[-2:])
    if (height, width) == tuple(grey.shape[-2:]):
        return grey
    energy = F.pad(grey.diff(dim=-1), (0, 1)).square() + F.pad(
        grey.diff(dim=-2), (0, 0, 0, 1)
    ).square()
    sums = F.avg_pool2d(energy, (height, width), (max(height // 2, 1), max(width // 2, 1)))
    row, column = divmod(int(sums.argmax()), sums.shape[-1])
    top, left = row * max(height // 2, 1), column * max(width // 2, 1)
    return grey[..., top : top + height, left : left + width]


def _trimmed(kernel: Tensor) -> Tensor:
    """Returns a kernel without borders of zeros; it stays centred."""
    k = centred(kernel)
    rows, columns = k[0, 0].nonzero(as_tuple=True)
    top, left = (
        min(int(n.min()), side - 1 - int(n.max()))
        for n, side in zip((rows, columns), k.shape[-2:], strict=True)
    )
    return k[..., top : k.shape[-2] - top, left : k.shape[-1] - left]


def _padded(kernel: Tensor, height: int, width: int) -> Tensor:
    vertical, horizontal = (height - kernel.shape[-2]) // 2, (width - kernel.shape[-1]) // 2
    return F.pad(kernel, (horizontal, horizontal, vertical, vertical))
