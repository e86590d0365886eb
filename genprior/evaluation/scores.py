"""Quality and cost scores of a restoration, with their definitions."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from genprior.core.errors import CheckpointError
from genprior.core.metrics import (
    WINDOW,
    border_jump,
    central_interval,
    coverage,
    crps,
    finite,
    gradient_ratio,
    hole_psnr,
    interval_width,
    patch_distance,
    psnr,
    rank_histogram,
    ssim,
)
from genprior.inverse.base import Restoration

LEVEL = 0.9
OTHER_LEVELS = (0.5, 0.8, 0.95)
LPIPS_SIDE = 32  # its network needs at least this size
DEFINITIONS = {
    "psnr": "10 log10(1 / MSE) in dB, the mean over pixels and channels of one image, data "
            "range 1, images clipped to [0, 1]; as skimage.metrics.peak_signal_noise_ratio",
    "psnr_best": "PSNR of the best sample, by comparison with the reference, as papers report of "
                 "4 runs of phase retrieval; for operators that are not linear",
    "ssim": f"structural similarity, {WINDOW}x{WINDOW} uniform windows, sample covariance, mean "
            "over channels, images clipped to [0, 1]; as skimage.metrics.structural_similarity",
    "lpips": "LPIPS with AlexNet, images clipped to [0, 1]; as deepinv.loss.metric.LPIPS; lower "
             "is better",
    "misfit": "RMS(A x - y) / noise level, near 1 when A x fits the measurement up to the "
              "noise; without noise RMS(A x - y)",
    "coverage": f"share of pixels whose true value lies in the central interval of the samples; "
                f"the interval of a perfect sampler covers it {{nominal:.0%}} of the time "
                f"(target: {LEVEL:.0%}); antithetic samples, the default, cover 7 percentage "
                f"points more with 4 samples, 2 with 8, 0.5 with 19; pixels at which all samples "
                f"are equal are left out",
    **{
        f"coverage{100 * level:.0f}": f"the same for the central {level:.0%} interval, or the "
        f"nearest that so many samples have; that of a perfect sampler covers {{{level}}}"
        for level in OTHER_LEVELS
    },
    "width": "mean width of the interval of coverage, in image units; narrower is better if the "
             "coverage is the same",
    "crps": "continuous ranked probability score, unbiased, mean over pixels, in image units; "
            "lower is better",
    "bias": "distance of the mean of the samples to the mean of the exact posterior, over the "
            "distance that exact samples have on average: 1 for a perfect sampler; for priors "
            "whose posterior is known (Gaussians and mixtures)",
    "std": "standard deviation of the samples over that of the exact posterior, RMS over pixels: "
           "1 for a perfect sampler",
    "w2": "sliced Wasserstein distance of the samples to samples of the exact posterior, over "
          "the distance of two sets of exact samples: about 1 for a perfect sampler",
    "hole_psnr": f"PSNR over the pixels of the holes, in dB; this and the next three only for "
                 f"images with a hole that holds a square of {WINDOW}x{WINDOW} pixels",
    "patch_distance": f"sliced Wasserstein distance of the {WINDOW}x{WINDOW} patches in the holes "
                      "to the true ones, each less its mean, in image units; it compares texture, "
                      "wherever it lies; lower is better",
    "gradient": "root mean square of the gradient in the holes / that in the ring of 16 pixels "
                "around them; near 1 where the texture goes on, small in a blur",
    "jump": "mean absolute difference of neighbours across the border of the holes / along it; "
            "above 1 a seam is visible",
    "seconds": "wall time of one image, without reading, simulating the measurement, scoring",
    "nfe": "evaluations of the prior's network per image, for all samples together",
    "products": "upper bound on the additional products with the Jacobian of the prior's network, "
                "one backward pass each; not counted for baselines",
    "memory": "peak memory in MB: of the CUDA allocator, or on a CPU of the whole process",
}
ALEXNET = "alexnet-owt-7be5be79.pth"
SCORES = ("psnr", "psnr_best", "ssim", "lpips", "misfit", "coverage50", "coverage80", "coverage",
          "coverage95", "width", "crps", "hole_psnr", "patch_distance", "gradient", "jump", "bias",
          "std", "w2", "seconds", "nfe", "products", "memory")


class Perceptual:
    """LPIPS, for images of 1 or 3 channels.

    Raises:
        CheckpointError: Its weights are not on this machine and cannot be downloaded.
    """

    def __init__(self, device: torch.device) -> None:
        from deepinv.loss.metric import LPIPS

        self.device = device
        try:
            self.metric = LPIPS(device=device)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"the weights of LPIPS cannot be downloaded ({error}): run once with a "
                f"connection, put torchvision's {ALEXNET} into {torch.hub.get_dir()}/checkpoints, "
                f"or leave --lpips out"
            ) from error

    def __call__(self, x: Tensor, reference: Tensor) -> Tensor:
        x, reference = (image.expand(-1, 3, -1, -1).to(self.device) for image in (x, reference))
        with torch.inference_mode():
            return self.metric(x, reference).flatten()


def score(
    result: Restoration, reference: Tensor, perceptual: Perceptual | None = None,
    hole: Tensor | None = None,
) -> list[dict[str, Any]]:
    """Returns the scores of each image of a batch; None for infinite or undefined values.

    Arguments:
        result: The restored batch.
        reference: Reference images, (B, C, H, W), of the size of the restored images.
        perceptual: LPIPS, or None to leave it out.
        hole: True in the holes, shape (B or 1, 1, H, W), or None without holes. Thin holes and
            scattered pixels get no scores of their own.
    """
    x, clipped = result.image.clamp(0, 1), reference.clamp(0, 1)
    values = {"psnr": psnr(x, clipped), "misfit": result.misfit}
    if min(reference.shape[-2:]) >= WINDOW:
        values["ssim"] = ssim(x, clipped)
    if perceptual is not None and min(reference.shape[-2:]) >= LPIPS_SIDE:
        values["lpips"] = perceptual(x, clipped)
    if result.samples is not None:
        values["coverage"] = coverage(result.samples, reference, LEVEL)
        for level in OTHER_LEVELS:
            values[f"coverage{100 * level:.0f}"] = coverage(result.samples, reference, level)
        values["width"] = interval_width(result.samples, LEVEL)
        values["crps"] = crps(result.samples, reference, result.antithetic)
    if hole is not None and min(reference.shape[-2:]) >= WINDOW:
        values |= _of_holes(x, clipped, hole)
    scores: list[dict[str, Any]] = [
        {name: finite(numbers[i]) for name, numbers in values.items()}
        for i in range(len(reference))
    ]
    if result.samples is not None:
        for one, ranks in zip(scores, rank_histogram(result.samples, reference), strict=True):
            one["ranks"] = [round(share, 6) for share in ranks.tolist()] if (
                ranks.isfinite().all()
            ) else None
    return scores


def _of_holes(x: Tensor, reference: Tensor, hole: Tensor) -> dict[str, Tensor]:
    """Returns the scores of filled holes, NaN for images without a wide one; {} if none has."""
    hole = hole.bool().expand(len(x), -1, -1, -1)
    wide = (avg_pool2d(hole.float(), WINDOW, 1) == 1).flatten(1).any(dim=1)
    if not wide.any():
        return {}
    values = {
        "hole_psnr": hole_psnr(x, reference, hole),
        "patch_distance": patch_distance(x, reference, hole),
        "gradient": gradient_ratio(x, hole),
        "jump": border_jump(x, hole),
    }
    return {name: torch.where(wide, value, torch.nan) for name, value in values.items()}


def definitions(names: list[str], samples: int) -> dict[str, str]:
    """Returns definitions of the named scores; that of coverage depends on `samples`."""
    nominal = {
        level: f"{central_interval(samples, level)[1] if samples > 1 else 0.0:.0%}"
        for level in (LEVEL, *OTHER_LEVELS)
    }
    texts = {}
    for name in names:
        texts[name] = DEFINITIONS[name].replace("{nominal:.0%}", nominal[LEVEL])
        for level in OTHER_LEVELS:
            texts[name] = texts[name].replace(f"{{{level}}}", nominal[level])
    return texts
