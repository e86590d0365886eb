"""GRF-64: deblurring a Gaussian field on a torus, where distances are known to 16 digits.

The field has 64 x 64 pixels, mean 0, spectrum S(k) = c (1 + (2 pi 4 |k|)^2)^-2 and standard
deviation 1/2 on [-1, 1]; the blur is a periodic Gaussian of standard deviation 2 pixels. The
law of a sampler is read off its code: it is affine, so the answers to a unit impulse in y and
in every image of noise that it draws are all there is to know, frequency by frequency.
"""

import math

import torch
from oracles import Impulses, Stationary

from genprior.inverse.base import Solver
from genprior.operators.blur import Blur

SIZE = 64


def distance(solver: Solver, noise_std: float) -> tuple[float, float, float]:
    """How far the law of a solver's answers is from the posterior.

    Arguments:
        solver: Affine in y and in its noise.
        noise_std: Noise level on [-1, 1].

    Returns:
        W2, its part that is due to the means, both on [-1, 1], and the ratio of variances.
    """
    f = torch.fft.fftfreq(SIZE, dtype=torch.float64)
    k2 = f[:, None] ** 2 + f**2
    S = (1 + (2 * math.pi * 4) ** 2 * k2) ** -2
    S = 0.25 * S / S.mean()
    h = torch.exp(-2 * math.pi**2 * 2**2 * k2)

    kernel = torch.fft.ifft2(h).real.roll((SIZE // 2, SIZE // 2), dims=(0, 1))
    # a chain for every image of noise, and one for y
    y = torch.full((solver.nfe + 1, 1, SIZE, SIZE), 0.5, dtype=torch.float64)
    y[-1, 0, 0, 0] += 1
    operator = Blur(kernel, "circular")
    x = solver(y, operator, Stationary(S / 4), noise_std / 2, Impulses())
    response = torch.fft.fft2(x[:, 0] - 0.5)
    # images on [0, 1] have a quarter of the variance
    gain, variance = response[-1], 4 * response[:-1].abs().square().sum(dim=0)

    cov_y = h**2 * S + noise_std**2
    exact_gain, exact_variance = h * S / cov_y, S * noise_std**2 / cov_y
    mean2 = ((gain - exact_gain).abs() ** 2 * cov_y).mean()
    bures2 = (variance.sqrt() - exact_variance.sqrt()).square().mean()
    ratio = variance.sum() / exact_variance.sum()
    return (mean2 + bures2).sqrt().item(), mean2.sqrt().item(), ratio.item()
