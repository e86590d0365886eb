"""Exact output distributions ("laws") of samplers, for Gaussian priors.

For a Gaussian prior, every linearly guided step is affine, x <- M x + N y + noise of covariance Q,
and the output given y is N(G y, V):

    G <- M G + N,    V <- M V M^H + Q

The distance to the true posterior N(K y, P), averaged over y, is

    W2^2 = tr((G - K) Cov(y) (G - K)^H) + tr(V + P - 2 (V^1/2 P V^1/2)^1/2)

Nothing is sampled. `propagate` takes the steps as matrices, `law_of` calls a solver as users do.

References:
    Exact Evaluation of the Accuracy of Diffusion Models for Inverse Problems with Gaussian
    Data Distributions, Pierret and Galerne, 2025.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver
from genprior.operators.base import Operator

CHUNK = 1024


@dataclass(frozen=True)
class Problem:
    """Linear Gaussian inverse problem: x ~ N(0, S), y = A x + sigma n, in independent blocks.

    There is one block for the whole image, or one per frequency of an orthonormal FFT.

    Arguments:
        S: Covariance, shape (..., n, n).
        A: Operator, shape (..., m, n).
        sigma: Standard deviation of the noise, > 0.
    """

    S: Tensor
    A: Tensor
    sigma: float

    @cached_property
    def cov_y(self) -> Tensor:
        """Covariance of y, shape (..., m, m)."""
        return self.A @ self.S @ self.A.mH + self.sigma**2 * eye(self.A.shape[-2], self.S)

    @cached_property
    def gain(self) -> Tensor:
        """K with E[x | y] = K y, shape (..., n, m)."""
        return right_solve(self.S @ self.A.mH, self.cov_y)

    @cached_property
    def posterior_cov(self) -> Tensor:
        """Cov[x | y], shape (..., n, n)."""
        return symmetric(self.S - self.gain @ self.A @ self.S)


@dataclass(frozen=True)
class Step:
    """Affine sampler step x <- M x + N y + noise of covariance Q.

    M and Q have shape (..., n, n), N has shape (..., n, m).
    """

    M: Tensor
    N: Tensor
    Q: Tensor


@dataclass(frozen=True)
class Law:
    """Output distribution N(G y, V) given y; G has shape (..., n, m), V (..., n, n)."""

    G: Tensor
    V: Tensor


@dataclass(frozen=True)
class Distance:
    """Distance of a law to the posterior, per pixel, averaged over y.

    Arguments:
        mean: Root mean square difference of the means.
        bures: Bures distance of the covariances.
        ratio: Total variance over that of the posterior.
    """

    mean: float
    bures: float
    ratio: float

    @property
    def w2(self) -> float:
        """Wasserstein-2 distance, in image units."""
        return (self.mean**2 + self.bures**2) ** 0.5


def white(problem: Problem, variance: float) -> Law:
    """Returns the law of white noise of a given variance, independent of y."""
    V = (variance * eye(problem.S.shape[-1], problem.S)).expand_as(problem.S)
    return Law(torch.zeros_like(problem.gain), V)


def propagate(start: Law, steps: Iterable[Step]) -> Law:
    """Returns the law after the steps of a sampler, from the law of its first state."""
    G, V = start.G, start.V
    for step in steps:
        G = step.M @ G + step.N
        V = step.M @ V @ step.M.mH + step.Q
    return Law(G, V)


def distance(law: Law, problem: Problem) -> Distance:
    """Returns the distance of a law to the posterior of the problem."""
    pixels = problem.S.shape[:-1].numel()
    error = law.G - problem.gain
    mean2 = trace(error @ problem.cov_y @ error.mH) / pixels
    P = problem.posterior_cov
    root = square_root(law.V)
    cross = torch.linalg.eigvalsh(symmetric(root @ P @ root)).clamp(min=0).sqrt().sum().item()
    bures2 = (trace(law.V) + trace(P) - 2 * cross) / pixels
    ratio = trace(law.V) / trace(P)
    return Distance(max(mean2, 0.0) ** 0.5, max(bures2, 0.0) ** 0.5, ratio)


def law_of(
    solver: Solver, operator: Operator, prior: object, noise_std: float, y: Tensor
) -> tuple[Law, Tensor]:
    """Returns the law of a solver's output, from its responses to unit impulses.

    There is an impulse for each entry of y, and for each random number that the solver draws. The
    law is exact for solvers that are affine in the measurement and in their noise. For
    a Gaussian prior, most are; those with a normalised step (DPS) or clipping are not.

    Arguments:
        solver: The solver, as users call it.
        operator, prior, noise_std: Passed to the solver.
        y: A measurement, shape (1, ...), float64; its values are not used.

    Returns:
        The law, with one block, for y and images as flat vectors, and the output for y = 0
        without noise, shape (n,).
    """
    no_impulse = _Impulses(range(0), y)
    offset = solver(torch.zeros_like(y), operator, prior, noise_std, no_impulse).flatten()

    def responses(count: int, y: Tensor, first: int) -> Tensor:
        impulses = _Impulses(range(first, first + count), y)
        return solver(y, operator, prior, noise_std, impulses).flatten(1) - offset

    basis = torch.eye(y.numel()).to(y).reshape(-1, *y.shape[1:])
    G = responses(0, basis, 0).mT
    V = torch.zeros(len(offset), len(offset)).to(y)
    for first in range(0, no_impulse.drawn, CHUNK):
        count = min(CHUNK, no_impulse.drawn - first)
        L = responses(count, torch.zeros_like(y).expand(count, *y.shape[1:]), first)
        V = V + L.mT @ L
    return Law(G, V), offset


class _Impulses(Noise):
    """Unit impulses in position of noise.

    Of all random numbers drawn for image i of the batch, number `numbers[i]` is 1, the others 0.
    """

    def __init__(self, numbers: range, like: Tensor) -> None:
        self.numbers = torch.tensor(numbers, dtype=torch.long, device=like.device)
        self.drawn = 0

    def normal(self, like: Tensor) -> Tensor:
        size = like[0].numel()
        noise = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
        position = self.numbers - self.drawn
        in_image = (position >= 0) & (position < size)
        rows = in_image.nonzero().flatten()
        noise.view(len(like), -1)[rows, position[rows]] = 1
        self.drawn += size
        return noise


def eye(n: int, like: Tensor) -> Tensor:
    """Returns the identity matrix, shape (n, n), with dtype and device of `like`."""
    return torch.eye(n, dtype=like.dtype, device=like.device)


def right_solve(a: Tensor, b: Tensor) -> Tensor:
    """Returns a b^{-1} for Hermitian b."""
    return torch.linalg.solve(b, a.mH).mH


def symmetric(a: Tensor) -> Tensor:
    """Returns the Hermitian part of a matrix."""
    return (a + a.mH) / 2


def square_root(a: Tensor) -> Tensor:
    """Returns the Hermitian square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(symmetric(a))
    return (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mH


def trace(a: Tensor) -> float:
    """Returns the real part of the trace, summed over all blocks."""
    return a.diagonal(dim1=-2, dim2=-1).real.sum().item()
