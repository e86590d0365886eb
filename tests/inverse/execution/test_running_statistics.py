"""Running mean and variance of samples, independent or in correlated pairs."""

import pytest
import torch

from genprior.core.random_streams import partners
from genprior.inverse.execution.running_statistics import RunningStatistics, beyond


def test_independent_samples_have_the_textbook_moments() -> None:
    x = torch.randn(5, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tally = RunningStatistics(1, keep=True)
    for sample in x:
        tally.add(0, sample[None])
    torch.testing.assert_close(tally.mean[0], x.mean(dim=0))
    torch.testing.assert_close(tally.std[0], x.std(dim=0))
    assert torch.equal(tally.samples[0], x)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("correlation", [-1.0, -0.6, 0.5])
def test_the_variance_of_correlated_pairs_has_no_bias(count: int, correlation: float) -> None:
    many = 200_000
    x = torch.randn(count, many, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for a, b in partners(count):
        x[b] = correlation * x[a] + (1 - correlation**2) ** 0.5 * x[b]
    tally = RunningStatistics(1, keep=False, paired=True)
    for sample in 3 + 2 * x:
        tally.add(0, sample[None])
    variance = tally.std[0].square()
    error = variance.std().item() / many**0.5
    assert abs(variance.mean().item() - 4) < 4 * error


def test_of_whole_pairs_it_is_the_variance_within_and_between_them() -> None:
    x = torch.randn(8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tally = RunningStatistics(1, keep=False, paired=True)
    for sample in x:
        tally.add(0, sample[None])
    a, b = (x[list(side)] for side in zip(*partners(8), strict=True))
    expected = ((a - b) ** 2 / 4).mean(dim=0) + ((a + b) / 2).var(dim=0)
    torch.testing.assert_close(tally.std[0].square(), expected)


@pytest.mark.parametrize("sizes", [[9], [1, 8], [3, 1, 5], [2, 2, 2, 3], [4, 5]])
@pytest.mark.parametrize("paired", [True, False])
def test_batches_of_any_size_have_the_moments_of_single_samples(
    sizes: list[int], paired: bool
) -> None:
    x = torch.randn(9, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    single, batched = (RunningStatistics(1, keep=True, paired=paired) for _ in range(2))
    for sample in x:
        single.add(0, sample[None])
    for batch in x.split(sizes):
        batched.add(0, batch)
    torch.testing.assert_close(batched.mean, single.mean)
    torch.testing.assert_close(batched.std, single.std)
    assert torch.equal(batched.samples, single.samples)


@pytest.mark.parametrize(("count", "level"), [(19, 0.05), (30, 0.05), (30, 0.5), (9, 0.9)])
def test_quantiles_have_another_sample_below_them_as_often_as_they_say(
    count: int, level: float
) -> None:
    many = 200_000
    x = torch.rand(count + 1, many, generator=torch.Generator().manual_seed(0))
    tally = RunningStatistics(1, keep=True)
    for sample in x[:-1]:
        tally.add(0, sample[None])
    below = (x[-1] < tally.quantiles([level])[level][0]).double().mean().item()
    assert abs(below - level) < 4 * (level * (1 - level) / many) ** 0.5


def test_quantiles_beyond_the_samples_are_their_extremes_and_said_so() -> None:
    x = torch.arange(8.0)
    tally = RunningStatistics(1, keep=True)
    for sample in x:
        tally.add(0, sample.reshape(1, 1, 1, 1))
    found = tally.quantiles([0.0, 0.05, 0.5, 0.95, 1.0])
    assert [q.item() for q in found.values()] == [0.0, 0.0, 3.5, 7.0, 7.0]
    low, high = beyond([0.0, 0.05, 0.5, 0.95, 1.0], 8)
    assert "quantile 0.05" in low and "quantile 0.95" in high and "draw 19 or more" in high
    assert not beyond([0.05, 0.95], 19)
