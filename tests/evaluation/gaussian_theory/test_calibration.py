import math

import pytest
import torch

from genprior.evaluation.gaussian_theory.calibration import (
    bias_over_floor,
    misfit_ratio,
    sliced_wasserstein,
    std_ratio,
    z_scores,
)

N, D = 4000, 6


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def law():
    root = torch.randn(D, 4, generator=generator(0), dtype=torch.float64)
    mean = torch.arange(D, dtype=torch.float64)
    z = torch.randn(N, 4, generator=generator(1), dtype=torch.float64)
    return mean, root @ root.T, mean + z @ root.T


def test_exact_samples_are_perfect(law):
    mean, cov, samples = law
    z = z_scores(samples, mean, cov)
    assert z.shape == (N, 4)
    assert z.square().mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / z.numel()))
    assert bias_over_floor(samples, mean, cov) < 2.5
    pixels = torch.arange(D) < 3
    assert std_ratio(samples, cov, pixels) == pytest.approx(1, abs=0.05)
    A = torch.randn(3, D, generator=generator(2), dtype=torch.float64)
    y = A @ mean + 0.5
    assert misfit_ratio(samples, y, A, mean, cov) == pytest.approx(1, abs=0.05)


def test_wrong_samples_are_detected(law):
    mean, cov, samples = law
    narrow = mean + 0.5 * (samples - mean)
    assert z_scores(narrow, mean, cov).square().mean().item() == pytest.approx(0.25, rel=0.1)
    assert std_ratio(narrow, cov, torch.ones(D, dtype=torch.bool)) == pytest.approx(0.5, rel=0.1)
    shift = cov.trace().sqrt() / math.sqrt(D)
    assert bias_over_floor(samples + shift, mean, cov) == pytest.approx(math.sqrt(N), rel=0.1)


def test_sliced_wasserstein_of_a_shift():
    a = torch.randn(N, D, generator=generator(3), dtype=torch.float64)
    shift = torch.full((D,), 2.0, dtype=torch.float64)
    # the mean of <v, shift>^2 over the sphere is |shift|^2 / d
    got = sliced_wasserstein(a, a + shift, generator(4), slices=1000)
    assert got == pytest.approx(2.0, rel=0.05)
    b = torch.randn(N, D, generator=generator(5), dtype=torch.float64)
    assert sliced_wasserstein(a, b, generator(4), slices=100) < 0.1


def test_errors(law):
    mean, cov, samples = law
    with pytest.raises(ValueError, match="no pixel is chosen"):
        std_ratio(samples, cov, torch.zeros(D, dtype=torch.bool))
    with pytest.raises(ValueError, match="equal shapes"):
        sliced_wasserstein(samples, samples[:5], generator(0))
