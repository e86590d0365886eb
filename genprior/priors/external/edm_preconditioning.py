"""Denoiser at any noise level from a network in the preconditioning of EDM.

With images u = 2 x - 1, noise level s = 2 sigma and the standard deviation d of the data,

    D(u, s) = c_skip u + c_out F(c_in u, ln(s) / 4)

    c_skip = d^2 / (s^2 + d^2),   c_out = s d / sqrt(s^2 + d^2),   c_in = 1 / sqrt(s^2 + d^2)

Networks of diffusers that predict v have -F in place of F.

References:
    Elucidating the Design Space of Diffusion-Based Generative Models, Karras et al., 2022.
"""

from collections.abc import Callable

from torch import Tensor

from genprior.core.linalg import per_image


class EDMPreconditioning:
    """Conversion of the outputs of a network to denoised images.

    Arguments:
        data_std: d, the standard deviation of the data in units of [-1, 1], > 0.
        sign: 1, or -1 for networks that predict v.
        sigma_range: Smallest and largest noise level of the training, in units of [-1, 1].

    Raises:
        ValueError: The standard deviation is not positive.
    """

    prediction = "edm"
    whole_steps = False

    def __init__(
        self, data_std: float = 0.5, sign: int = 1,
        sigma_range: tuple[float, float] = (0.002, 80.0),
    ) -> None:
        if not 0 < data_std < float("inf"):
            raise ValueError(f"the standard deviation of the data must be > 0, got {data_std}")
        self.data_std, self.sign = data_std, sign
        self.range = sigma_range[0] / 2, sigma_range[1] / 2

    def denoise(
        self, network: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float | Tensor
    ) -> Tensor:
        """Returns denoised images.

        Arguments:
            network: Maps c_in u (B, C, H, W) and ln(s) / 4 (B,) to outputs of the shape of u.
            x: Noisy images in units of [0, 1], shape (B, C, H, W).
            sigma: Noise level in units of [0, 1], > 0; a number or shape (B,).
        """
        u, s = 2 * x - 1, 2 * per_image(sigma, x)
        total = s**2 + self.data_std**2
        t = (s.log() / 4).flatten().expand(len(x))
        f = self.sign * network(u / total.sqrt(), t).to(x.dtype)
        u_hat = self.data_std**2 / total * u + s * self.data_std / total.sqrt() * f
        return (u_hat + 1) / 2
