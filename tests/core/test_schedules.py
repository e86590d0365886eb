import numpy as np
import pytest
import torch

from genprior.core.schedules import ddpm_sigmas, reverse_step, sigma_steps, step_coefficients


def test_linear_levels_are_those_of_ho_et_al():
    beta = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - beta)
    assert alpha_bar[-1] == pytest.approx(4.04e-5, rel=1e-2)
    assert np.allclose(ddpm_sigmas() * 2, np.sqrt(1 / alpha_bar - 1))


def test_cosine_levels_are_clipped_where_nichol_and_dhariwal_clip():
    sigma = 2 * ddpm_sigmas("cosine")
    alpha_bar = 1 / (1 + sigma**2)
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    assert beta.max() == pytest.approx(0.999)
    t = 500 / 1000
    cosine = np.cos((np.array([t, 0]) + 0.008) / 1.008 * np.pi / 2)
    expected = (cosine[0] / cosine[1]) ** 2
    assert alpha_bar[499] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("spacing", ["log", "vp", "karras", "ddpm"])
def test_levels_decrease_and_reach_their_bounds(spacing):
    sigma = sigma_steps(20, 50.0, 0.01, spacing)
    assert len(sigma) == 20
    assert all(a > b for a, b in zip(sigma, sigma[1:], strict=False))
    if spacing != "ddpm":
        assert sigma[0] == pytest.approx(50.0) and sigma[-1] == pytest.approx(0.01)


def test_vp_is_geometric_in_the_noise_of_the_variance_preserving_state():
    sigma = np.array(sigma_steps(5, 10.0, 0.01, "vp"))
    ratios = np.diff(np.log(np.sqrt(1 - 1 / (1 + sigma**2))))
    assert np.allclose(ratios, ratios[0]) and sigma[1] < 1


def test_the_step_is_the_ddpm_posterior():
    # q(x_s | x_t, x_0) of the variance-preserving chain, from its definition by conditioning
    s, t = 0.7, 1.9
    a_t, a_s = 1 / (1 + t**2), 1 / (1 + s**2)
    a_step = a_t / a_s
    beta = 1 - a_step
    variance = (1 - a_s) / (1 - a_t) * beta
    x0, x_t = 0.3, 1.1
    mean = np.sqrt(a_s) * beta / (1 - a_t) * x0 + np.sqrt(a_step) * (1 - a_s) / (1 - a_t) * x_t
    keep, added = step_coefficients(t, s, eta=1.0)
    ours = x0 + keep * (x_t / np.sqrt(a_t) - x0)
    assert ours * np.sqrt(a_s) == pytest.approx(mean)
    assert added * np.sqrt(a_s) == pytest.approx(np.sqrt(variance))


def test_ddim_is_deterministic_and_the_last_step_returns_the_estimate():
    x, x_hat = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3)
    assert step_coefficients(2.0, 1.0, eta=0.0) == (0.5, 0.0)
    assert torch.equal(reverse_step(x, x_hat, None, 1.0, 0.0, eta=1.0), x_hat)


def test_errors():
    with pytest.raises(ValueError, match="0 < sigma_min <= sigma_max"):
        sigma_steps(5, 0.1, 1.0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        sigma_steps(0, 1.0, 0.1)
    with pytest.raises(ValueError, match="'log', 'vp', 'karras' or 'ddpm'"):
        sigma_steps(5, 1.0, 0.1, "linear")
    with pytest.raises(ValueError, match="'linear' or 'cosine'"):
        ddpm_sigmas("quadratic")
