"""Monte-Carlo tests of the calibration of a sampler, against an exact posterior N(mean, cov).

The docstring of each test says what an exact sampler gets. Samples are rows, shape (N, d), all for
the same measurement; images are flattened.

References:
    Sliced and Radon Wasserstein Barycenters of Measures, Bonneel et al., 2015.
"""

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-10


def z_scores(samples: Tensor, mean: Tensor, cov: Tensor) -> Tensor:
    """Returns whitened samples, which are N(0, I) if the samples are N(mean, cov).

    For an exact sampler, the mean of z^2 is 1 with standard deviation sqrt(2 / z.numel()).

    Arguments:
        samples: Shape (N, d).
        mean: Shape (d,) or (N, d).
        cov: Shape (d, d); directions of zero variance are left out.

    Returns:
        Scores, shape (N, rank of cov).
    """
    values, vectors = torch.linalg.eigh(cov)
    nonzero = values > RANK_TOLERANCE * values[-1]
    return (samples - mean) @ vectors[:, nonzero] / values[nonzero].sqrt()


def bias_over_floor(samples: Tensor, mean: Tensor, cov: Tensor) -> float:
    """Returns the error of the sample mean over that of N exact samples: 1 if exact."""
    floor = (cov.trace() / len(samples)).sqrt()
    return ((samples.mean(dim=0) - mean).norm() / floor).item()


def std_ratio(samples: Tensor, cov: Tensor, pixels: Tensor) -> float:
    """Returns the RMS standard deviation of chosen pixels over the exact one: 1 if exact.

    Arguments:
        samples: Shape (N, d).
        cov: Exact covariance, shape (d, d).
        pixels: Boolean mask of the chosen pixels, shape (d,): observed or missing ones, say.

    Raises:
        ValueError: No pixel is chosen, or the exact posterior has no variance there.
    """
    exact = cov.diagonal()[pixels].sum()
    if not exact > 0:
        raise ValueError("no pixel is chosen, or the exact posterior has no variance there")
    return (samples[:, pixels].var(dim=0).sum() / exact).sqrt().item()


def misfit_ratio(samples: Tensor, y: Tensor, matrix: Tensor, mean: Tensor, cov: Tensor) -> float:
    """Returns RMS(A x - y) over its value for the exact posterior: 1 if exact.

    Arguments:
        samples: Shape (N, d).
        y: The measurement, shape (m,).
        matrix: A, shape (m, d).
        mean, cov: The exact posterior, shapes (d,) and (d, d).
    """
    exact = (matrix @ mean - y).square().sum() + ((matrix @ cov) * matrix).sum()
    actual = (samples @ matrix.T - y).square().sum(dim=1).mean()
    return (actual / exact).sqrt().item()


def sliced_wasserstein(
    a: Tensor, b: Tensor, generator: torch.Generator, slices: int = 1000
) -> float:
    """Returns the sliced Wasserstein-2 distance of two sample sets, for several modes.

    Two finite sets from one distribution have a positive distance: compare with that of two
    exact sets.

    Arguments:
        a, b: Samples, both of shape (N, d).
        generator: Draws random directions, on the CPU.
        slices: Number of directions.

    Raises:
        ValueError: The sets differ in shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"a and b must have equal shapes, got {tuple(a.shape)}, {tuple(b.shape)}")
    v = torch.randn(a.shape[1], slices, generator=generator, dtype=torch.float64).to(a)
    v = v / v.norm(dim=0)
    difference = (a @ v).sort(dim=0).values - (b @ v).sort(dim=0).values
    return difference.square().mean().sqrt().item()
