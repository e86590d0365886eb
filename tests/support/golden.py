"""Gaussian random fields as test problems, with exact distances of samplers to the posterior.

GRF-64 is deblurring of a field on a torus, where distances are known to 16 digits. The field
has 64 x 64 pixels, mean 0, spectrum S(k) = c (1 + (2 pi 4 |k|)^2)^-2 and standard deviation 1/2
on [-1, 1]. The blur is a periodic Gaussian with a standard deviation of 2 pixels. A sampler is
affine, so its distribution follows from its answers to a unit impulse in y and in every image
of noise that it draws, frequency by frequency.

GRF-12 has 12 x 12 pixels, rho 2 instead of 4, four operators and noise 0.05; its distributions
are computed with matrices.
"""

import math

import affine_samplers
import torch
from oracles import Impulses, Stationary
from torch import Tensor
from torch.fft import fft2, ifft2

from genprior.core.linalg import Singular, per_image
from genprior.core.schedules import step_coefficients
from genprior.evaluation.gaussian_theory.exact_laws import (
    Law,
    Problem,
    Step,
    eye,
    law_of,
    propagate,
    trace,
    white,
)
from genprior.evaluation.gaussian_theory.exact_laws import distance as law_distance
from genprior.inverse.base import Solver
from genprior.inverse.diffusion.dps import AUTHORS_MEASUREMENTS, DPS
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.superres import SuperResolution
from genprior.priors.texture import Texture

SIZE = 64
VAR = 0.25


def distance(
    solver: Solver, noise_std: float, draws: int | None = None
) -> tuple[float, float, float]:
    """Returns the distance of the distribution of a solver's answers to the posterior.

    Arguments:
        solver: Affine in y and in its noise.
        noise_std: Noise level on [-1, 1].
        draws: Number of images of noise it draws; None means one per evaluation.

    Returns:
        W2, the part of it due to the means, both on [-1, 1], and the ratio of variances.
    """
    S, h = field64()
    kernel = torch.fft.ifft2(h).real.roll((SIZE // 2, SIZE // 2), dims=(0, 1))
    # one sample for every image of noise, and one for y
    count = draws or solver.nfe
    y = torch.full((count + 1, 1, SIZE, SIZE), 0.5, dtype=torch.float64)
    y[-1, 0, 0, 0] += 1
    operator = Blur(kernel, "circular")
    x = solver(y, operator, Stationary(S / 4), noise_std / 2, Impulses())
    response = fft2(x[:, 0] - 0.5)
    # images on [0, 1] have a quarter of the variance
    gain, variance = response[-1], 4 * response[:-1].abs().square().sum(dim=0)
    return score(gain, variance, noise_std)


def field64() -> tuple[Tensor, Tensor]:
    """Returns the spectrum of the field on [-1, 1] and the transfer function of the blur."""
    k2, S = spectrum(SIZE, 4)
    return 4 * S, torch.exp(-2 * math.pi**2 * 2**2 * k2)


def score(gain: Tensor, variance: Tensor, noise_std: float) -> tuple[float, float, float]:
    """Returns the distance of N(gain y, variance) to the posterior, frequency by frequency.

    Returns:
        As `distance`.
    """
    S, h = field64()
    cov_y = h**2 * S + noise_std**2
    exact_gain, exact_variance = h * S / cov_y, S * noise_std**2 / cov_y
    mean2 = ((gain - exact_gain).abs() ** 2 * cov_y).mean()
    bures2 = (variance.sqrt() - exact_variance.sqrt()).square().mean()
    ratio = variance.sum() / exact_variance.sum()
    return (mean2 + bures2).sqrt().item(), mean2.sqrt().item(), ratio.item()


def spectrum(size: int, rho: float) -> tuple[Tensor, Tensor]:
    """Returns squared frequencies and the spectrum of the field in image units."""
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    k2 = f[:, None] ** 2 + f**2
    S = (1 + (2 * math.pi * rho) ** 2 * k2) ** -2
    return k2, VAR / 4 * S / S.mean()


class Convolution(Operator):
    """Circular convolution by a real transfer function."""

    def __init__(self, h: Tensor) -> None:
        self.h = h

    def A(self, x: Tensor) -> Tensor:
        return self.multiply(x, self.h)

    A_adjoint = A

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        return measurement_shape

    def pinv(self, y: Tensor) -> Tensor:
        return self.multiply(y, 1 / self.h)

    def prox(self, x: Tensor, y: Tensor, rho: Tensor) -> Tensor:
        residual = self.multiply(y - self.A(x), self.h / (self.h**2 + per_image(rho, x)))
        return x + residual

    def solve_gram(self, v: Tensor, c: float, sigma2: Tensor) -> Tensor:
        return self.multiply(v, 1 / (c * self.h**2 + per_image(sigma2, v)))

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        return Singular(self.h, fft2, lambda c: ifft2(c).real, fft2)

    def multiply(self, x: Tensor, gain: Tensor) -> Tensor:
        return ifft2(gain * fft2(x)).real


def grf12() -> tuple[Texture, list[Operator], list[Problem]]:
    """Returns prior, operators and dense problems of GRF-12."""
    k2, S = spectrum(12, 2)
    prior = Texture.from_spectrum(S)
    i, j = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    box = torch.ones(1, 1, 12, 12)
    box[..., 3:9, 3:9] = 0
    operators = [
        Convolution(torch.exp(-2 * math.pi**2 * k2)),
        Inpainting(box),
        Inpainting(((5 * i + 7 * j) % 10 < 3)[None, None]),
        SuperResolution(3, "box"),
    ]
    unit = torch.eye(144, dtype=torch.float64).reshape(-1, 1, 12, 12)
    cov = prior.cov(unit).flatten(1)
    problems = []
    for op in operators:
        A = op.A(unit).flatten(1).T
        A = A[A.abs().sum(dim=1) > 0]
        problems.append(Problem(cov[None], A[None], 0.025))
    return prior, operators, problems


def distance12(solver: Solver, index: int) -> float:
    """Returns W2 on [-1, 1] between a solver's distribution and the posterior, for GRF-12."""
    prior, operators, problems = grf12()
    op = operators[index]
    y = op.A(torch.zeros(1, 1, 12, 12, dtype=torch.float64))
    got, _ = law_of(solver, op, prior, 0.025, y)
    known = op.mask_unmeasured(torch.ones_like(y)).flatten() > 0
    return 2 * law_distance(Law(got.G[None, :, known], got.V[None]), problems[index]).w2


def distance6(solver: Solver, index: int) -> float:
    """Returns W2 in image units for a 6 x 6 field, a random mask or averages of 3 x 3."""
    prior = Texture.from_spectrum(spectrum(6, 2)[1])
    i, j = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    random = Inpainting(((5 * i + 7 * j) % 10 < 3)[None, None])
    op = [random, SuperResolution(3, "box")][index]
    unit = torch.eye(36, dtype=torch.float64).reshape(-1, 1, 6, 6)
    A = op.A(unit).flatten(1).T
    problem = Problem(prior.cov(unit).flatten(1)[None], A[A.abs().sum(dim=1) > 0][None], 0.025)
    y = op.A(torch.zeros(1, 1, 6, 6, dtype=torch.float64))
    got, _ = law_of(solver, op, prior, 0.025, y)
    known = op.mask_unmeasured(torch.ones_like(y)).flatten() > 0
    return law_distance(Law(got.G[None, :, known], got.V[None]), problem).w2


def mean_norm(r: Tensor, dim: int) -> Tensor:
    """Returns the mean-field norm of residuals (B, m): the root mean square over samples."""
    return r.square().sum(dim=dim).mean().sqrt().expand(len(r))


def dps_law(solver: DPS, problem: Problem) -> Law:
    """Returns the mean-field distribution of DPS.

    The residual is divided by its root mean square over all samples. In high dimension, the norm
    of each sample's residual is near that.
    """
    A, one = problem.A, eye(problem.S.shape[-1], problem.S)
    law = white(problem, VAR + solver.sigmas[0] ** 2)
    zeta = solver.strength * (A.shape[:-1].numel() / AUTHORS_MEASUREMENTS) ** 0.5
    for sigma, sigma_next in zip(solver.sigmas, [*solver.sigmas[1:], 0.0], strict=True):
        D = affine_samplers.denoiser(problem, sigma)
        AD = A @ D
        rest = eye(A.shape[-2], A) - AD @ law.G
        power = trace(rest @ problem.cov_y @ rest.mH + AD @ law.V @ AD.mH)
        push = zeta * solver.unscale(sigma, sigma_next) / power**0.5 * AD.mH
        keep, added = step_coefficients(sigma, sigma_next, 1.0)
        M = (1 - keep) * D + keep * one - push @ AD
        law = propagate(law, [Step(M, push, added**2 * one.expand_as(D))])
    return law
