"""Denoiser at any noise level from a velocity field: flow matching and rectified flows.

With data u = 2 x - 1 at time t = 1 and noise at 0, the path of training and its velocity are

    u_t = t u + (1 - t) n,   v(u_t, t) = E[u - n | u_t],   s = (1 - t) / t = 2 sigma

so that, from the state u + s n = u_t / t,

    D(u + s n, s) = u_t + (1 - t) v(u_t, t),   t = 1 / (1 + s)

Where data are at time 0 instead, the velocity is E[n - u | u_t] and the time 1 - t.

References:
    Flow Matching for Generative Modeling, Lipman et al., 2023.
    Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow, Liu et al.,
        2023.
    Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, Tong
        et al., 2024 (torchcfm).

A network that was trained with an optimal-transport coupling of data and noise, or a reflow, is
not exactly the posterior mean: the noise is not independent of the data.
"""

from collections.abc import Callable

from torch import Tensor

from genprior.core.linalg import per_image


class FlowMatching:
    """Times of noise levels, and the conversion of velocities to denoised images.

    Arguments:
        data_at: Time of the data, 0 or 1; noise is at the other end.
        scale: Factor of the times that the network takes, such as 1000 for diffusers.

    Raises:
        ValueError: `data_at` is neither 0 nor 1, or the scale is not positive.
    """

    prediction = "velocity"
    range = (0.0, float("inf"))
    whole_steps = False

    def __init__(self, data_at: int = 1, scale: float = 1.0) -> None:
        if data_at not in (0, 1):
            raise ValueError(f"data_at must be 0 or 1, got {data_at}")
        if not 0 < scale < float("inf"):
            raise ValueError(f"the scale of the times must be positive, got {scale}")
        self.data_at, self.scale = data_at, scale

    def denoise(
        self, network: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float | Tensor
    ) -> Tensor:
        """Returns denoised images.

        Arguments:
            network: Maps u_t (B, C, H, W) in the units of [-1, 1] and times (B,), multiplied by
                the scale, to velocities of the shape of u_t.
            x: Noisy images in units of [0, 1], shape (B, C, H, W).
            sigma: Noise level in units of [0, 1], > 0; a number or shape (B,).
        """
        u, s = 2 * x - 1, 2 * per_image(sigma, x)
        t = 1 / (1 + s)
        u_t, share = t * u, s / (1 + s)
        time = (t if self.data_at else share).flatten().expand(len(x))
        v = network(u_t, self.scale * time).to(x.dtype)
        u_hat = u_t + share * (v if self.data_at else -v)
        return (u_hat + 1) / 2

    def describe(self) -> dict[str, object]:
        """Returns what `genprior priors info` prints about the path."""
        return {"prediction": self.prediction, "data_at": self.data_at, "time_scale": self.scale,
                "noise_levels": "all"}

