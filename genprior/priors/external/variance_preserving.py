"""Denoiser at any noise level from a network trained at the time steps of a diffusion model.

    u_t = sqrt(a_t) u + sqrt(1 - a_t) n,   u = 2 x - 1,   s_t = sqrt((1 - a_t) / a_t) = 2 sigma

    epsilon   D(u, s) = u - s F(u_t, t)
    v         D(u, s) = a u - sqrt(1 - a) F(u_t, t)
    sample    D(u, s) = F(u_t, t),        with u_t = sqrt(a) u, a = 1 / (1 + s^2)

The time t of a noise level between two steps is interpolated linearly in ln s.

References:
    Denoising Diffusion Probabilistic Models, Ho et al., 2020 (epsilon).
    Progressive Distillation for Fast Sampling of Diffusion Models, Salimans and Ho, 2022 (v).
    Elucidating the Design Space of Diffusion-Based Generative Models, Karras et al., 2022
        (networks of discrete steps as denoisers).

Differs from the authors' code:
    Estimates are not clipped to [-1, 1].
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from genprior.core.linalg import per_image

Prediction = Literal["epsilon", "v_prediction", "sample"]


class VariancePreserving:
    """Noise levels of the time steps, and the conversion of predictions to denoised images.

    Arguments:
        alphas_cumprod: a_t of all time steps, decreasing, shape (T,), float64. A last step
            without signal (a_t = 0) is left out.
        prediction: What the network predicts.
        whole_steps: The network takes whole time steps only: the nearest is used.

    Raises:
        ValueError: The prediction is unknown, or a_t does not decrease within (0, 1).
    """

    def __init__(
        self, alphas_cumprod: Tensor, prediction: Prediction, whole_steps: bool = False
    ) -> None:
        if prediction not in get_args(Prediction):
            raise ValueError(
                f"prediction must be one of {', '.join(get_args(Prediction))}, got {prediction!r}"
            )
        a = alphas_cumprod.detach().cpu().double()
        a = a[a > 1e-10]
        if len(a) < 2 or not ((a < 1).all() and (a.diff() < 0).all()):
            raise ValueError("the signal levels a_t of a noise schedule must decrease in (0, 1)")
        self.prediction, self.whole_steps = prediction, whole_steps
        self.log_levels = ((1 - a) / a).log() / 2
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest noise level of the training, in units of [0, 1]."""
        low, high = (self.log_levels[[0, -1]].exp() / 2).tolist()
        return low, high

    def time(self, sigma: float | Tensor) -> Tensor:
        """Returns the time steps of noise levels, clamped to the trained ones; shape (B,)."""
        s = torch.as_tensor(2 * sigma, dtype=None if isinstance(sigma, Tensor) else torch.float64)
        table = self._table(s)
        level = s.reshape(-1).log()
        after = torch.searchsorted(table, level.contiguous()).clamp(1, len(table) - 1)
        low, high = table[after - 1], table[after]
        t = after - 1 + ((level - low) / (high - low)).clamp(0, 1)
        return t.round() if self.whole_steps else t

    def denoise(
        self, network: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float | Tensor
    ) -> Tensor:
        """Returns denoised images.

        Arguments:
            network: Maps u_t (B, C, H, W) in the units of [-1, 1] and times (B,) to predictions
                of the shape of u_t.
            x: Noisy images in units of [0, 1], shape (B, C, H, W).
            sigma: Noise level in units of [0, 1], > 0; a number or shape (B,).
        """
        u, s = 2 * x - 1, 2 * per_image(sigma, x)
        a = 1 / (1 + s**2)
        t = self.time(sigma).to(x).expand(len(x))
        f = network(a.sqrt() * u, t).to(x.dtype)
        if self.prediction == "epsilon":
            u_hat = u - s * f
        elif self.prediction == "v_prediction":
            u_hat = a * u - (s * a.sqrt()) * f
        else:
            u_hat = f
        return (u_hat + 1) / 2

    def _table(self, like: Tensor) -> Tensor:
        key = like.device, like.dtype  # copied to a device once, not in every step
        if key not in self._tables:
            self._tables[key] = self.log_levels.to(like)
        return self._tables[key]
