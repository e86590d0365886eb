import torch
from mpmath import mp

from genprior.operators.truncated_normal import truncated_mean


def test_the_mean_agrees_with_quadrature() -> None:
    mean = torch.tensor([0.0, 3.0, -9.0, 40.0, 0.2, -300.0], dtype=torch.float64)
    centre = torch.tensor([0.0, 4.0, -8.0, 0.0, 100.0, 0.0], dtype=torch.float64)
    half = torch.tensor([5.0, 1.0, 0.5, 8.0, 60.0, 20.0], dtype=torch.float64)
    for spread in (0.05, 1.0, 7.0, 300.0):
        width = torch.tensor(spread, dtype=torch.float64)
        found = truncated_mean(mean, width, centre - half, centre + half, 1e-4)
        expected = [
            quadrature(*map(float, numbers), spread)
            for numbers in zip(mean, centre - half, centre + half, strict=True)
        ]
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def quadrature(mean: float, low: float, high: float, spread: float) -> float:
    """Returns the mean of a truncated normal law by integration with 30 digits."""
    with mp.workdps(30):
        peak = min(max(mean, low), high)

        def density(u: mp.mpf) -> mp.mpf:
            return mp.exp(((peak - mean) ** 2 - (u - mean) ** 2) / (2 * mp.mpf(spread) ** 2))

        decay = spread / max(1, abs(peak - mean) / spread)  # its scale near the peak
        marks = {low, high}
        marks |= {peak + sign * k * decay for sign in (-1, 1) for k in (0, 1, 4, 12, 40)}
        parts = sorted(mark for mark in marks if low <= mark <= high)
        return float(mp.quad(lambda u: u * density(u), parts) / mp.quad(density, parts))


def test_a_spread_of_zero_is_the_projection() -> None:
    mean, low, high = (torch.tensor(v).double() for v in ([-3.0, 0.2, 9.0], [-1.0] * 3, [1.0] * 3))
    found = truncated_mean(mean, torch.zeros((), dtype=torch.float64), low, high, 1e-6)
    assert torch.equal(found, mean.clamp(-1, 1))
