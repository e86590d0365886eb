"""Noise schedules and the DDPM / DDIM reverse step of diffusion samplers.

The state is variance-exploding, x = x0 + sigma n, in image units. A variance-preserving
state x_t = sqrt(a_t) x0 + sqrt(1 - a_t) n of images in [-1, 1] is sqrt(a_t) times that state, with
(2 sigma)^2 = (1 - a_t) / a_t. The DDPM posterior and the DDIM step of both are the same.

References:
    Denoising Diffusion Probabilistic Models, Ho et al., 2020.
    Denoising Diffusion Implicit Models, Song et al., 2021.
    Improved Denoising Diffusion Probabilistic Models, Nichol and Dhariwal, 2021 (cosine).
    Elucidating the Design Space of Diffusion-Based Generative Models, Karras et al., 2022.
"""

import math
from typing import Literal

import numpy as np
from torch import Tensor

Spacing = Literal["log", "vp", "karras", "ddpm"]
TRAINING_STEPS = 1000


def ddpm_sigmas(schedule: Literal["linear", "cosine"] = "linear") -> np.ndarray:
    """Returns the noise levels of the 1000 training steps of DDPM, for images in [0, 1].

    Arguments:
        schedule: "linear" (Ho et al.: beta from 1e-4 to 0.02) or "cosine" (Nichol, Dhariwal).

    Returns:
        Increasing array of 1000 levels. DDPM uses images in [-1, 1]; these are half its levels.

    Raises:
        ValueError: `schedule` is neither "linear" nor "cosine".
    """
    if schedule == "linear":
        beta = np.linspace(1e-4, 0.02, TRAINING_STEPS)
    elif schedule == "cosine":
        t = np.arange(TRAINING_STEPS + 1) / TRAINING_STEPS
        level = np.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = np.minimum(1 - level[1:] / level[:-1], 0.999)
    else:
        raise ValueError(f"schedule must be 'linear' or 'cosine', got {schedule!r}")
    alpha_bar = np.cumprod(1 - beta)
    return np.sqrt((1 - alpha_bar) / alpha_bar) / 2


def sigma_steps(
    steps: int, sigma_max: float, sigma_min: float, spacing: Spacing = "log"
) -> list[float]:
    """Returns decreasing noise levels of a sampler, from `sigma_max` down to `sigma_min`.

    Arguments:
        steps: Number of levels (denoiser evaluations), >= 1.
        sigma_max: First level, in image units.
        sigma_min: Last level, in image units, > 0.
        spacing: "log" is geometric; "vp" is geometric in sigma / sqrt(1 + sigma^2), the noise
            level of a variance-preserving state, with few levels above 1; "karras" is uniform
            in sigma^(1/7); "ddpm" takes the linear-beta levels of DDPM nearest to uniform in
            time, and ignores the bounds.

    Raises:
        ValueError: A bound, the number of steps or the spacing is invalid.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if spacing == "ddpm":
        if steps > TRAINING_STEPS:
            raise ValueError(
                f"spacing 'ddpm' has {TRAINING_STEPS} levels, got steps {steps}: take fewer, or "
                f"another spacing"
            )
        last = TRAINING_STEPS - 1
        times = np.linspace(0, last, steps) if steps > 1 else np.array([last])
        index = np.unique(np.rint(times).astype(int))
        return ddpm_sigmas()[index[::-1]].tolist()
    if not 0 < sigma_min <= sigma_max < math.inf:
        raise ValueError(
            f"noise levels must satisfy 0 < sigma_min <= sigma_max (image units) and be finite, "
            f"got sigma_min={sigma_min}, sigma_max={sigma_max}"
        )
    if spacing == "log":
        return np.geomspace(sigma_max, sigma_min, steps).tolist()
    if spacing == "vp":
        first, last = (-math.log1p(sigma**-2) / 2 for sigma in (sigma_max, sigma_min))
        log_noise = np.linspace(first, last, steps)
        return (np.expm1(-2 * log_noise) ** -0.5).tolist()
    if spacing == "karras":
        return (np.linspace(sigma_max ** (1 / 7), sigma_min ** (1 / 7), steps) ** 7).tolist()
    raise ValueError(f"spacing must be 'log', 'vp', 'karras' or 'ddpm', got {spacing!r}")


def step_coefficients(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Returns the factor of the noise kept in x, and the level of the noise added.

    Arguments:
        sigma: Level of the state, > 0.
        sigma_next: Level after the step, in [0, sigma].
        eta: 0 is DDIM (deterministic), 1 is DDPM (its posterior variance).

    Returns:
        (keep, added) such that keep^2 sigma^2 + added^2 = sigma_next^2.
    """
    added = eta * sigma_next * math.sqrt(max(1 - (sigma_next / sigma) ** 2, 0.0))
    keep = math.sqrt(max(sigma_next**2 - added**2, 0.0)) / sigma
    return keep, added


def reverse_step(
    x: Tensor, x_hat: Tensor, noise: Tensor | None, sigma: float, sigma_next: float, eta: float
) -> Tensor:
    """Takes one DDIM / DDPM step from level `sigma` to `sigma_next`, given an estimate of x0.

    x_next = x_hat + keep (x - x_hat) + added n

    Arguments:
        x: State at level `sigma`, shape (B, C, H, W).
        x_hat: Estimate of x0, same shape.
        noise: White noise n, same shape; may be None if eta or `sigma_next` is 0.
        sigma, sigma_next, eta: See `step_coefficients`.
    """
    keep, added = step_coefficients(sigma, sigma_next, eta)
    x_next = x_hat + keep * (x - x_hat)
    return x_next if noise is None or added == 0 else x_next + added * noise
