"""Monte-Carlo measures of a sampler against an exact posterior N(mean, cov).

Every measure says what a perfect sampler gets. Samples are rows: shape (N, d), all for the
same measurement; images are flattened.

References:
    Sliced and Radon Wasserstein Barycenters of Measures, Bonneel et al., 2015.
"""

import torch
from torch import Tensor

NULL = 1e-10


def z_scores(samples: Tensor, mean: Tensor, cov: Tensor) -> Tensor:
    """Coordinates of samples that are N(0, I) if the samples are N(mean, cov).

    A perfect sampler gets a mean of z^2 of 1, with standard deviation sqrt(2 / z.numel()).

    Arguments:
        samples: Shape (N, d).
        mean: Shape (d,) or (N, d).
        cov: Shape (d, d); directions without variance are left out.

    Returns:
        Scores, shape (N, rank of cov).
    """
    values, vectors = torch.linalg.eigh(cov)
    seen = values > NULL * values[-1]
    return (samples - mean) @ vectors[:, seen] / values[seen].sqrt()


def bias_over_floor(samples: Tensor, mean: Tensor, cov: Tensor) -> float:
    """Error of the mean of the samples, over what N exact samples would have: 1 if perfect."""
    floor = (cov.trace() / len(samples)).sqrt()
    return ((samples.mean(dim=0) - mean).norm() / floor).item()


def std_ratio(samples: Tensor, cov: Tensor, pixels: Tensor) -> float:
    """Standard deviation of some pixels over the exact one, in root mean square: 1 if perfect.

    Arguments:
        samples: Shape (N, d).
        cov: Exact covariance, shape (d, d).
        pixels: Which pixels, True or False, shape (d,): the observed ones, or the missing.

    Raises:
        ValueError: There is no such pixel, or they have no variance.
    """
    exact = cov.diagonal()[pixels].sum()
    if not exact > 0:
        raise ValueError("no pixel is chosen, or the exact posterior has no variance there")
    return (samples[:, pixels].var(dim=0).sum() / exact).sqrt().item()


def misfit_ratio(samples: Tensor, y: Tensor, matrix: Tensor, mean: Tensor, cov: Tensor) -> float:
    """RMS(A x - y) over its value for the exact posterior: 1 if perfect.

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
    """Sliced Wasserstein-2 distance of two sets of samples, for laws with many modes.

    Two sets from the same law are not at distance 0: compare with a second exact set.

    Arguments:
        a, b: Samples, both of shape (N, d).
        generator: Random directions, on the CPU.
        slices: How many directions.

    Raises:
        ValueError: The sets differ in shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"both sets must have one shape, got {tuple(a.shape)}, {tuple(b.shape)}")
    v = torch.randn(a.shape[1], slices, generator=generator, dtype=torch.float64).to(a)
    v = v / v.norm(dim=0)
    difference = (a @ v).sort(dim=0).values - (b @ v).sort(dim=0).values
    return difference.square().mean().sqrt().item()
