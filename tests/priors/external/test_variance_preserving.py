"""Denoisers from time steps, compared with the exact denoiser of a Gaussian distribution."""

import numpy as np
import pytest
import torch

from genprior.priors.external.variance_preserving import VariancePreserving

BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHAS = np.cumprod(1 - BETAS)
STD = 0.6  # of the pixels u ~ N(0, STD^2), in units of [-1, 1]


def exact_network(prediction: str):
    """The best network for Gaussian pixels, as a function of u_t and a real time."""
    log_s = np.log((1 - ALPHAS) / ALPHAS) / 2

    def network(u_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        s2 = torch.from_numpy(np.exp(2 * np.interp(t.numpy(), range(1000), log_s)))
        a = (1 / (1 + s2)).reshape(-1, 1, 1, 1)
        total = a * STD**2 + 1 - a  # the variance of u_t
        u, n = a.sqrt() * STD**2 / total * u_t, (1 - a).sqrt() / total * u_t
        v = a.sqrt() * n - (1 - a).sqrt() * u
        return {"sample": u, "epsilon": n, "v_prediction": v}[prediction]

    return network


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_is_the_exact_denoiser(prediction: str) -> None:
    steps = VariancePreserving(torch.from_numpy(ALPHAS), prediction)
    x = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    for sigma in (0.01, 0.123, 2.5, torch.tensor([0.05, 0.5, 5.0]).double()):
        s2 = 4 * torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1, 1, 1) ** 2
        expected = (STD**2 / (STD**2 + s2) * (2 * x - 1) + 1) / 2
        got = steps.denoise(exact_network(prediction), x, sigma)
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)


def test_times_are_those_of_the_training() -> None:
    steps = VariancePreserving(torch.from_numpy(ALPHAS), "epsilon")
    sigma = torch.from_numpy(np.sqrt((1 - ALPHAS) / ALPHAS) / 2)
    torch.testing.assert_close(steps.time(sigma), torch.arange(1000.0).double())
    assert steps.time(float(sigma[400])).item() == pytest.approx(400, abs=1e-9)
    between = steps.time(float((sigma[400] * sigma[401]) ** 0.5)).item()
    assert between == pytest.approx(400.5)
    assert steps.time(1e-6).item() == 0 and steps.time(1e6).item() == 999
    assert steps.range == pytest.approx((sigma[0].item(), sigma[-1].item()))
    table = VariancePreserving(torch.from_numpy(ALPHAS), "epsilon", whole_steps=True)
    assert table.time(float(sigma[400] * 1.0001)).item() == 400


def test_a_last_step_without_signal_is_left_out() -> None:
    a = torch.tensor([0.9, 0.5, 0.1, 0.0])
    steps = VariancePreserving(a, "v_prediction")
    assert steps.time(1e9).item() == 2


@pytest.mark.parametrize(("a", "prediction", "message"), [
    ([0.9, 0.5], "score", "prediction must be one of epsilon, v_prediction, sample, got 'score'"),
    ([0.5, 0.9], "epsilon", "must decrease in"),
    ([1.0, 0.9], "epsilon", "must decrease in"),
])
def test_invalid_schedules_are_refused(a: list[float], prediction: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VariancePreserving(torch.tensor(a), prediction)
