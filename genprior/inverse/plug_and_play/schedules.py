"""Trained schedules of half-quadratic splitting: level, coupling, relaxation, momentum.

The steps are unrolled, and the numbers of each step are found by gradient descent on the error of
the last image, on crops of training photos, with the weights of `ddpm` fixed:
`benchmarks/train_schedule.py`. Level and coupling are powers of the noise level. Blur has two sets
of numbers, for kernels that remove high frequencies and for those that pass them, and each kernel
has a mean of both, weighted by its `sharpness`.

The numbers of the schedules named "unrolled-..." were trained together with a copy of the network,
which is used in these steps only (`Denoiser.denoise_unrolled`): `benchmarks/train_unrolled.py`.

References:
    Plug-and-Play Image Restoration with Deep Denoiser Prior, Zhang et al., 2021 (the iteration).
    Deep Unfolding Network for Image Super-Resolution, Zhang et al., 2020 (levels and couplings
        given by a network, which is trained together with the denoiser).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.linalg import per_image

# Noise levels of the training, in image units; other levels take the numbers of the nearest one.
TRAINED_LEVELS = (0.002, 0.1)
REFERENCE = 0.01
# Shares of the energy of a kernel beyond half of the Nyquist frequency, for sharpness 0 and 1: a
# Gaussian of std 1.4 has the first one, a box of 5 x 5 pixels and a Gaussian of 0.8 the second.
SHARES = (0.003, 0.15)
GRID = 64  # frequencies per axis; more for larger kernels


@dataclass(frozen=True)
class Step:
    """One step of half-quadratic splitting; the names are those of `HQS`.

    Arguments:
        sigma: Noise levels of the denoiser, shape (B,).
        coupling: lambda; a number or shape (B,).
        relaxation: r; a number or shape (B,).
        momentum: m; a number or shape (B,); not used in the first step.
    """

    sigma: Tensor
    coupling: float | Tensor
    relaxation: float | Tensor
    momentum: float | Tensor = 0.0


@dataclass(frozen=True)
class Schedule:
    """Numbers of each step; level and coupling are those for noise of `REFERENCE`.

    Arguments:
        sigma: Noise levels of the denoiser, in units of 1/255.
        coupling: Couplings lambda.
        relaxation: Relaxations r; the last one is not used.
        momentum: Momenta m; the first and the last one are not used.
        sigma_power, coupling_power: Powers of the noise level of the data, relative to
            `REFERENCE`, with which level and coupling grow.
        sharp: The numbers for kernels of sharpness 1; those above are for sharpness 0.
        views: Views of the posterior mean that holes start from.
        unrolled: Whether the network of the steps is `denoise_unrolled`, which was trained
            together with these numbers.
    """

    sigma: Sequence[float]
    coupling: Sequence[float]
    relaxation: Sequence[float]
    momentum: Sequence[float]
    sigma_power: Sequence[float]
    coupling_power: Sequence[float]
    sharp: "Schedule | None" = None
    views: int = 0
    unrolled: bool = False

    @property
    def nfe(self) -> int:
        """Evaluations of the networks."""
        return self.views + len(self.sigma)

    def steps(self, noise_std: Tensor, kernel: Tensor | None = None) -> list[Step]:
        """Returns the steps.

        Arguments:
            noise_std: Noise levels in image units, shape (B,).
            kernel: Kernels of a blur, shape (1 or B, 1, h, w).
        """
        relative = noise_std.clamp(*TRAINED_LEVELS) / REFERENCE
        soft, sharp, part = self, self.sharp or self, torch.zeros_like(relative)
        if kernel is not None:
            part = per_image(sharpness(kernel), noise_std)

        def mean(name: str, k: int) -> Tensor:
            return (1 - part) * getattr(soft, name)[k] + part * getattr(sharp, name)[k]

        def geometric_mean(name: str, k: int) -> Tensor:
            return getattr(soft, name)[k] ** (1 - part) * getattr(sharp, name)[k] ** part

        return [
            Step(
                geometric_mean("sigma", k) / 255 * relative ** mean("sigma_power", k),
                geometric_mean("coupling", k) * relative ** mean("coupling_power", k),
                mean("relaxation", k),
                mean("momentum", k),
            )
            for k in range(len(self.sigma))
        ]


def sharpness(kernel: Tensor) -> Tensor:
    """Returns how much of the high frequencies each kernel passes, from 0 to 1, shape (B,).

    Arguments:
        kernel: Shape (B, 1, h, w).
    """
    size = [max(GRID, side) for side in kernel.shape[-2:]]
    energy = torch.fft.fft2(kernel[:, 0].cpu().double(), s=size).abs() ** 2
    rows, columns = (torch.fft.fftfreq(n).abs() > 0.25 for n in size)
    high = rows[:, None] | columns
    share = energy[:, high].sum(dim=1) / energy.sum(dim=(1, 2))
    low = math.log(SHARES[0])
    return ((share.log() - low) / (math.log(SHARES[1]) - low)).clamp(0, 1).to(kernel)


TRAINED: dict[str, Schedule] = {
    "blur-4": Schedule(
        sigma=(82.6, 37.8, 15.2, 5.85),
        coupling=(0.221, 0.0607, 0.11, 0.0626),
        relaxation=(0.438, 0.265, 0.0966, 0),
        momentum=(0, 1.07, 0.374, 0),
        sigma_power=(0.0706, 0.104, 0.148, 0.669),
        coupling_power=(0.458, 0.00856, 0.293, 0.324),
        sharp=Schedule(
            sigma=(48.2, 24.1, 10.6, 4.25),
            coupling=(0.188, 0.136, 0.115, 0.116),
            relaxation=(0.36, 0.226, 0.353, 0),
            momentum=(0, 0.516, 0.213, 0),
            sigma_power=(0.371, 0.362, 0.375, 0.533),
            coupling_power=(0.427, -0.114, 0.097, 0.168),
        ),
    ),
    "blur-8": Schedule(
        sigma=(61.4, 36.5, 23.8, 16, 13.8, 7.57, 4.81, 2.04),
        coupling=(0.273, 0.0672, 0.0708, 0.0517, 0.0485, 0.0526, 0.0852, 0.102),
        relaxation=(0.919, 0.565, 0.771, 1.13, 0.611, 0.4, 0.287, 0),
        momentum=(0, 1.12, 0.878, 0.256, -0.519, -0.209, -0.315, 0),
        sigma_power=(0.308, 0.146, 0.514, 0.358, 0.483, 0.507, 0.403, 0.404),
        coupling_power=(0.499, -0.109, 0.0642, -0.0818, 0.268, 0.0977, 0.201, 0.119),
        sharp=Schedule(
            sigma=(76.2, 43.6, 23.9, 14.3, 17.6, 8.51, 5.79, 2.75),
            coupling=(0.112, 0.102, 0.194, 0.111, 0.101, 0.11, 0.0908, 0.0971),
            relaxation=(0.763, 0.367, 0.698, 1.31, 0.649, 0.684, 0.608, 0),
            momentum=(0, 0.576, -0.00932, 0.529, 0.1, 0.0112, -0.243, 0),
            sigma_power=(0.214, 0.287, 0.132, 0.149, 0.619, 0.428, 0.745, 0.868),
            coupling_power=(0.108, 0.0739, -0.69, 0.0493, 0.131, -0.0804, 0.316, 0.044),
        ),
    ),
    "downsampling-4": Schedule(
        sigma=(38.4, 16, 10, 4.82),
        coupling=(0.933, 0.0494, 0.0557, 0.0602),
        relaxation=(1.01, 0.632, 0.589, 0),
        momentum=(0, 1.2, 0.32, 0),
        sigma_power=(0.344, 0.37, 0.492, 0.815),
        coupling_power=(2.11, 0.152, 0.451, 0.33),
    ),
    "downsampling-8": Schedule(
        sigma=(57.9, 21.2, 15.7, 15.7, 9.17, 9.08, 8.6, 3.3),
        coupling=(0.433, 0.0621, 0.0669, 0.0795, 0.0422, 0.0586, 0.0908, 0.0962),
        relaxation=(0.605, 0.495, 1.68, 1.7, 1.15, 1.25, 0.312, 0),
        momentum=(0, 1.42, 1.12, 0.701, -0.676, 0.141, -0.191, 0),
        sigma_power=(0.32, 0.467, 0.424, 0.411, 0.317, 0.353, 0.338, 0.366),
        coupling_power=(0.925, -0.0313, 0.296, 0.172, 0.096, 0.365, 0.118, 0.116),
    ),
    "downsampling-16": Schedule(
        sigma=(87.5, 39.8, 18.8, 14.1, 15.5, 11.2, 13.4, 14.4, 12.2, 8.75, 10.8, 9.69, 11.1,
            7.99, 4.19, 2.53),
        coupling=(0.532, 0.136, 0.0567, 0.0848, 0.0485, 0.0798, 0.0629, 0.0677, 0.0364, 0.0613,
            0.05, 0.0712, 0.0692, 0.092, 0.0999, 0.102),
        relaxation=(0.863, 0.384, 0.806, 1.09, 1.51, 1.25, 1.2, 1.26, 1.25, 1.09, 1.33, 1.02,
            0.974, 0.412, 0.612, 0),
        momentum=(0, 0.99, 1.02, 0.886, 0.615, 0.307, 0.268, 0.357, 0.274, -0.13, -0.122, 0.102,
            0.111, -0.182, -0.403, 0),
        sigma_power=(-0.00216, 0.263, 0.248, 0.0914, 0.663, 0.0881, 0.799, 0.575, 0.25, 0.559,
            0.237, 0.523, 0.286, 0.326, 0.0497, 0.214),
        coupling_power=(1.08, 0.281, -0.203, 0.353, -0.0544, 0.405, 0.0373, 0.171, -0.183, 0.511,
            0.258, 0.5, 0.155, 0.118, 0.237, 0.344),
    ),
    "unrolled-blur-4": Schedule(
        unrolled=True,
        sigma=(73.4, 25.9, 17.7, 5.12),
        coupling=(0.194, 0.0567, 0.083, 0.0599),
        relaxation=(0.25, 0.136, 0.252, 0),
        momentum=(0, 0.698, 0.133, 0),
        sigma_power=(0.0157, 0.0978, 0.149, 0.391),
        coupling_power=(0.428, -0.0933, 0.068, 0.135),
        sharp=Schedule(
            sigma=(43.9, 19.9, 8.82, 3.38),
            coupling=(0.131, 0.0975, 0.0961, 0.0992),
            relaxation=(0.221, 0.237, 0.363, 0),
            momentum=(0, 0.425, 0.338, 0),
            sigma_power=(0.104, 0.278, 0.298, 0.509),
            coupling_power=(0.212, -0.16, -0.0261, 0.13),
        ),
    ),
    "unrolled-blur-8": Schedule(
        unrolled=True,
        sigma=(53.2, 32.5, 25.3, 22.4, 14.1, 9.95, 7, 3.29),
        coupling=(0.121, 0.0458, 0.0681, 0.0497, 0.0475, 0.053, 0.0845, 0.0964),
        relaxation=(0.304, 0.279, 0.657, 0.573, 0.609, 0.397, 0.249, 0),
        momentum=(0, 0.569, 0.451, 0.218, 0.281, 0.456, 0.0726, 0),
        sigma_power=(0.0836, -0.124, 0.122, 0.241, 0.171, 0.237, 0.316, 0.399),
        coupling_power=(0.449, -0.0445, 0.119, -0.0504, -0.0661, 0.0147, -0.101, -0.0115),
        sharp=Schedule(
            sigma=(49.7, 38.2, 24.2, 13.3, 11.1, 7.1, 3.72, 1.95),
            coupling=(0.126, 0.105, 0.158, 0.0817, 0.0812, 0.0977, 0.0819, 0.108),
            relaxation=(0.281, 0.317, 0.677, 0.972, 0.437, 0.507, 0.489, 0),
            momentum=(0, 0.0257, -0.00104, 0.632, 0.248, 0.123, -0.083, 0),
            sigma_power=(0.068, 0.308, 0.17, 0.242, 0.247, 0.339, 0.412, 0.524),
            coupling_power=(0.0833, -0.21, -0.422, -0.242, -0.21, -0.0958, 0.0117, 0.0443),
        ),
    ),
    "unrolled-downsampling-4": Schedule(
        unrolled=True,
        sigma=(29.6, 17.4, 10.6, 4.75),
        coupling=(0.632, 0.0407, 0.041, 0.0497),
        relaxation=(0.7, 0.578, 0.503, 0),
        momentum=(0, 0.844, 0.133, 0),
        sigma_power=(0.16, 0.16, 0.322, 0.48),
        coupling_power=(1.78, -0.0974, 0.224, 0.271),
    ),
    "unrolled-downsampling-6": Schedule(
        unrolled=True,
        sigma=(43.4, 20.4, 14.9, 11.2, 7.23, 3.19),
        coupling=(0.248, 0.0557, 0.0564, 0.0433, 0.0534, 0.0815),
        relaxation=(0.36, 0.273, 0.854, 0.554, 0.234, 0),
        momentum=(0, 0.929, 0.729, 0.0619, -0.0192, 0),
        sigma_power=(0.138, 0.196, 0.256, 0.347, 0.311, 0.43),
        coupling_power=(0.321, 0.137, 0.143, 0.0296, 0.071, 0.24),
    ),
    "unrolled-scattered-4": Schedule(
        unrolled=True,
        views=3,
        sigma=(6.78, 3.9, 2.4, 1.81),
        coupling=(0.118, 0.0829, 0.0902, 0.0933),
        relaxation=(0.873, 0.924, 0.968, 0),
        momentum=(0, -0.0761, 0.355, 0),
        sigma_power=(0.087, 0.146, 0.174, 0.231),
        coupling_power=(0.171, -0.0164, -0.056, 0.108),
    ),
    "unrolled-hole-3": Schedule(
        unrolled=True,
        views=4,
        sigma=(7.45, 4.54, 2.99),
        coupling=(0.147, 0.105, 0.0993),
        relaxation=(0.32, 0.663, 0),
        momentum=(0, 0.156, 0),
        sigma_power=(-0.00429, 0.109, 0.00652),
        coupling_power=(0.488, 0.318, 0.232),
    ),
}
