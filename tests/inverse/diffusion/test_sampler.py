import pytest
import torch
from oracles import Crooked, Replay, Silence, normals

from genprior import load_prior
from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.sampler import denoise_with_vjp, run_levels
from genprior.inverse.execution.monitor import monitored_denoiser


def test_the_first_state_is_the_one_of_ddpm() -> None:
    num_samples, sigma = 4000, 1.5
    first = []

    def step(x: torch.Tensor, *_: object) -> torch.Tensor:
        first.append(x)
        return x

    like = torch.zeros(num_samples, 1, 2, 3, dtype=torch.float64)
    run_levels(like, [sigma], Noise(0, range(num_samples)), step)
    x, count = first[0], num_samples * 6
    spread = (0.25 + sigma**2) ** 0.5
    assert x.mean().item() == pytest.approx(0.5, abs=5 * spread / count**0.5)
    assert x.var().item() == pytest.approx(spread**2, rel=5 * (2 / count) ** 0.5)


def test_steps_receive_their_levels_and_noise_in_order() -> None:
    draws = normals(3, 2, 1, 2, 2)
    seen = []

    def step(
        x: torch.Tensor, sigma: float, sigma_next: float, noise: torch.Tensor | None
    ) -> torch.Tensor:
        seen.append((sigma, sigma_next, noise))
        assert not torch.is_grad_enabled()
        return 2 * x

    x = run_levels(torch.zeros_like(draws[0]), [3.0, 2.0, 0.5], Replay(draws), step)
    assert [levels[:2] for levels in seen] == [(3.0, 2.0), (2.0, 0.5), (0.5, 0.0)]
    assert torch.equal(seen[0][2], draws[1])
    assert torch.equal(seen[1][2], draws[2])
    assert seen[2][2] is None
    torch.testing.assert_close(x, 8 * (0.5 + 9.25**0.5 * draws[0]))


def test_unused_noise_is_not_drawn() -> None:
    silence = Silence()
    run_levels(torch.zeros(1, 1, 2, 2), [3.0, 2.0, 1.0], silence, lambda x, *_: x)
    assert silence.drawn == 3


def test_vjp_is_the_transposed_jacobian() -> None:
    x, v = normals(2, 2, 1, 3, 4)
    prior = Crooked()
    x_hat, vjp = denoise_with_vjp(prior.denoise, x, 0.3)
    assert torch.equal(x_hat, prior.denoise(x, 0.3))
    assert not x_hat.requires_grad
    assert not x.requires_grad
    jacobian = torch.autograd.functional.jacobian(lambda u: prior.denoise(u, 0.3), x)
    expected = (jacobian.reshape(24, 24).mT @ v.flatten()).reshape(x.shape)
    torch.testing.assert_close(vjp(v), expected, rtol=0, atol=1e-12)


def test_vjp_works_inside_no_grad_and_costs_one_evaluation() -> None:
    calls = []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return x**2

    x = normals(1, 1, 1, 2, 2)[0]
    with torch.no_grad():
        _, vjp = denoise_with_vjp(denoise, x, 0.7)
        torch.testing.assert_close(vjp(torch.ones_like(x)), 2 * x)
    assert calls == [0.7]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 0.02)])
@pytest.mark.parametrize("exponent", [-40, -20, 20])
def test_vjp_of_small_and_large_vectors_does_not_underflow_or_overflow(
    dtype: str, tolerance: float, exponent: int
) -> None:
    prior = monitored_denoiser(load_prior("ddpm:digits"), dtype, None, 1)
    x, v = (t.float() for t in normals(2, 2, 1, 16, 16))
    _, vjp = denoise_with_vjp(prior.denoise, x, 0.3)
    expected = vjp(v)
    assert expected.abs().min() > 0
    error = vjp(v * 2.0**exponent) * 2.0**-exponent - expected
    assert error.norm() <= tolerance * expected.norm()
