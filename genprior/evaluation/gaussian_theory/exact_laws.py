"""The law of what a sampler returns, exactly, where the prior is Gaussian.

Then every linearly guided step is affine, x <- M x + N y + noise of covariance Q, and the
output given y is N(G y, V):

    G <- M G + N,    V <- M V M^H + Q

and the distance to the true posterior N(K y, P), averaged over y, is

    W2^2 = tr((G - K) Cov(y) (G - K)^H) + tr(V + P - 2 (V^1/2 P V^1/2)^1/2)

Nothing is sampled. `propagate` takes the steps as matrices, `law_of` the code of a solver as
it is called by users.

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
    """x ~ N(0, S) and y = A x + sigma n, in blocks that are independent of each other.

    One block holds everything, or there is a block per frequency of an orthonormal FFT.

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
    """x <- M x + N y + noise of covariance Q; shapes (..., n, n), (..., n, m), (..., n, n)."""

    M: Tensor
    N: Tensor
    Q: Tensor


@dataclass(frozen=True)
class Law:
    """N(G y, V) given y; shapes (..., n, m) and (..., n, n)."""

    G: Tensor
    V: Tensor


@dataclass(frozen=True)
class Distance:
    """How far a law is from the posterior, per pixel, averaged over y.

    Arguments:
        mean: Root mean square difference of the means.
        bures: Distance of the covariances.
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
    """White noise of that variance, which knows nothing of y."""
    V = (variance * eye(problem.S.shape[-1], problem.S)).expand_as(problem.S)
    return Law(torch.zeros_like(problem.gain), V)


def propagate(start: Law, steps: Iterable[Step]) -> Law:
    """The law of a sampler after its steps, given that of its first state."""
    G, V = start.G, start.V
    for step in steps:
        G = step.M @ G + step.N
        V = step.M @ V @ step.M.mH + step.Q
    return Law(G, V)


def distance(law: Law, problem: Problem) -> Distance:
    """Distance of a law to the posterior of the problem."""
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
    """The law of a solver's output, from its code: the response to each of its random numbers.

    Exact for solvers that are affine in the measurement and in the noise they draw, as most
    are for a Gaussian prior; a normalised step (DPS) or clipping is not.

    Arguments:
        solver: The solver, as users call it.
        operator, prior, noise_std: As in the call.
        y: A measurement, shape (1, ...), float64; only its shape counts.

    Returns:
        The law, with one block, for y and images as flat vectors, and the answer to y = 0
        without noise, shape (n,).
    """
    silence = _Impulses(range(0), y)
    offset = solver(torch.zeros_like(y), operator, prior, noise_std, silence).flatten()

    def responses(count: int, y: Tensor, first: int) -> Tensor:
        impulses = _Impulses(range(first, first + count), y)
        return solver(y, operator, prior, noise_std, impulses).flatten(1) - offset

    basis = torch.eye(y.numel()).to(y).reshape(-1, *y.shape[1:])
    G = responses(0, basis, 0).mT
    V = torch.zeros(len(offset), len(offset)).to(y)
    for first in range(0, silence.drawn, CHUNK):
        count = min(CHUNK, silence.drawn - first)
        L = responses(count, torch.zeros_like(y).expand(count, *y.shape[1:]), first)
        V = V + L.mT @ L
    return Law(G, V), offset


class _Impulses(Noise):
    """In place of noise: chain i gets a single 1, as the `numbers[i]`-th number it draws."""

    def __init__(self, numbers: range, like: Tensor) -> None:
        self.numbers = torch.tensor(numbers, dtype=torch.long, device=like.device)
        self.drawn = 0

    def normal(self, like: Tensor) -> Tensor:
        size = like[0].numel()
        noise = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
        place = self.numbers - self.drawn
        inside = (place >= 0) & (place < size)
        rows = inside.nonzero().flatten()
        noise.view(len(like), -1)[rows, place[rows]] = 1
        self.drawn += size
        return noise


def eye(n: int, like: Tensor) -> Tensor:
    """Identity matrix of the type and device of `like`, shape (n, n)."""
    return torch.eye(n, dtype=like.dtype, device=like.device)


def right_solve(a: Tensor, b: Tensor) -> Tensor:
    """a b^{-1} for Hermitian b."""
    return torch.linalg.solve(b, a.mH).mH


def symmetric(a: Tensor) -> Tensor:
    """The Hermitian part."""
    return (a + a.mH) / 2


def square_root(a: Tensor) -> Tensor:
    """Hermitian square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(symmetric(a))
    return (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mH


def trace(a: Tensor) -> float:
    """Sum of the real diagonals of all blocks."""
    return a.diagonal(dim1=-2, dim2=-1).real.sum().item()
