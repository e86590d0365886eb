import pytest
import torch

from genprior.core.errors import SettingError
from genprior.operators.noise_models import (
    CorrelatedNoise,
    IndependentNoise,
    PoissonNoise,
    SignalDependentNoise,
    WhiteNoise,
)

SHAPE = torch.Size((2, 3, 6, 5))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rand(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def autocovariance(channels, seed=1):
    """E[n_c(p) n_d(p + t)] of white noise filtered by random kernels that mix the channels."""
    k = rand(channels, channels, 3, 3, seed=seed) - 0.3
    padded = torch.nn.functional.pad(k, (2, 2, 2, 2))
    c = torch.zeros(channels, channels, 5, 5, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            # n_c(p) = sum_e,s k[c, e, s] w_e(p - s): lag t pairs s with s + t
            c[..., i, j] = torch.einsum("cexy,dexy->cd", k, padded[..., i : i + 3, j : j + 3])
    return 0.01 * c, k


def models(channels=3):
    own = torch.stack([autocovariance(channels, seed)[0] for seed in (1, 2)])
    return {
        "white": WhiteNoise([0.1, 0.3]),
        "map": IndependentNoise(0.05 + rand(2, 1, 6, 5)),
        "alike": CorrelatedNoise.from_kernel(torch.ones(3, 3), 0.1, floor=0.02),
        "channels": CorrelatedNoise(own[0], floor=0.01),
        "per image": CorrelatedNoise(own, floor=0.01),
    }


def matrix(function, shape):
    """Dense matrices of a linear map, one per image: (B, N, N)."""
    basis = torch.eye(shape[1:].numel(), dtype=torch.float64).reshape(-1, 1, *shape[1:])
    rows = torch.stack([function(e.expand(shape)) for e in basis])
    return rows.flatten(2).permute(1, 2, 0)


@pytest.mark.parametrize("name", list(models()))
def test_functions_of_the_covariance_are_those_of_its_matrix(name):
    noise = models()[name]
    cov = matrix(noise.covariance, SHAPE)
    assert torch.allclose(cov, cov.mT, atol=1e-12)
    s, basis = torch.linalg.eigh(cov)
    assert (s > 0).all()
    assert torch.allclose(
        noise.variance(torch.zeros(SHAPE, dtype=torch.float64)), s.mean(dim=1), rtol=1e-6
    )
    for function, of_s in (
        (noise.whiten, s.rsqrt()),
        (noise.colour, s.sqrt()),
        (noise.score, -1 / s),
    ):
        expected = basis @ torch.diag_embed(of_s) @ basis.mT
        assert torch.allclose(matrix(function, SHAPE), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", list(models()))
@pytest.mark.parametrize("tau2", [0.04, torch.tensor([0.01, 0.3], dtype=torch.float64)])
def test_prox_minimises_its_objective(name, tau2):
    noise, x, y = models()[name], rand(*SHAPE, seed=2), rand(*SHAPE, seed=3)
    u = noise.prox(x, y, tau2)
    weight = torch.as_tensor(tau2, dtype=x.dtype).expand(2).reshape(-1, 1, 1, 1)
    # the gradient is 0
    assert torch.allclose(noise.score(u - y), (u - x) / weight, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", list(models()))
def test_images_of_a_batch_are_independent(name):
    noise, v = models()[name], rand(*SHAPE, seed=4)
    together = noise.whiten(v)
    for i in range(2):
        alone = noise.select([i]).whiten(v[i : i + 1])
        assert torch.allclose(alone[0], together[i], rtol=1e-12)


def test_the_covariance_is_that_of_the_filtered_noise():
    c, k = autocovariance(3)
    noise = CorrelatedNoise(c)
    shape = torch.Size((1, 3, 6, 7))

    def filtered(w):
        # periodic convolution, n_c(p) = sum k[c, e, s] w_e(p - s), s = 0, 1, 2
        parts = [
            torch.einsum("ce,behw->bchw", k[..., i, j], w.roll((i, j), (-2, -1)))
            for i in range(3) for j in range(3)
        ]
        return 0.1 * sum(parts)

    root = matrix(filtered, shape)[0]
    assert torch.allclose(matrix(noise.covariance, shape)[0], root @ root.T, atol=1e-9)


def test_a_kernel_gives_noise_of_the_given_level():
    noise = CorrelatedNoise.from_kernel(torch.ones(3, 3), 0.05)
    n = noise.colour(torch.randn(1, 1, 300, 300, generator=generator(), dtype=torch.float64))
    assert n.std().item() == pytest.approx(0.05, rel=0.02)
    correlation = (n[..., 1:] * n[..., :-1]).mean() / n.square().mean()
    assert correlation.item() == pytest.approx(2 / 3, abs=0.03)
    assert noise.level(n.float()).item() == pytest.approx(0.05)


def test_autocovariances_wider_than_the_image_are_wrapped():
    noise = CorrelatedNoise.from_kernel(torch.ones(5, 5), 0.05, floor=0.01)
    cov = matrix(noise.covariance, torch.Size((1, 1, 4, 3)))[0]
    assert cov.diagonal().min() > 0.05**2 + 0.01**2
    assert torch.linalg.eigvalsh(cov).min() > 0.99 * 0.01**2


def test_the_score_of_poisson_noise_is_the_gradient_of_its_log_likelihood():
    noise, expected = PoissonNoise(30), (0.1 + rand(1, 1, 3, 3)).requires_grad_()
    counts = torch.poisson(30 * expected.detach(), generator=generator())
    torch.distributions.Poisson(30 * expected).log_prob(counts).sum().backward()
    assert torch.allclose(noise.score(expected.detach(), counts / 30), expected.grad)


def test_the_variance_of_signal_dependent_noise_is_affine():
    x = rand(1, 1, 4, 4)
    v = SignalDependentNoise(0.02, 0.001).at(x).covariance(torch.ones_like(x))
    assert torch.allclose(v, 0.02 * x + 0.001, atol=1e-7)


@pytest.mark.parametrize("value", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("noise", [PoissonNoise(30), SignalDependentNoise(0.01, 0.002)])
def test_the_transform_stabilises_the_variance_and_its_inverse_is_unbiased(noise, value):
    size = (1, 1, 400, 400)
    counts = torch.poisson(torch.full(size, value / noise.gain).double(), generator=generator())
    gauss = torch.randn(size, generator=generator(1), dtype=torch.float64)
    y = noise.gain * counts + noise.offset**0.5 * gauss
    z = noise.stabilise(y)
    assert z.std().item() == pytest.approx(1, abs=0.03)
    std = (noise.gain * value + noise.offset) ** 0.5
    back = noise.unstabilise(z.mean().reshape(1, 1, 1, 1)).item()
    # 1 % of the noise, and four standard errors of the mean
    assert back == pytest.approx(value, abs=0.01 * std + 4 * std / 400)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WhiteNoise(0.0), "std of noise must be > 0"),
        (lambda: WhiteNoise(float("nan")), "std of noise must be > 0"),
        (lambda: IndependentNoise(torch.ones(3)), "must have shape"),
        (lambda: IndependentNoise(-torch.ones(3, 3)), "must be > 0"),
        (lambda: IndependentNoise(torch.ones(3, 3)).whiten(rand(1, 1, 4, 4)), "does not fit"),
        (lambda: CorrelatedNoise(torch.ones(2, 2)), "odd h and w"),
        (lambda: CorrelatedNoise(torch.ones(3)), "odd h and w"),
        (lambda: CorrelatedNoise(-torch.ones(3, 3)), "variance > 0"),
        (lambda: CorrelatedNoise(torch.eye(3), floor=-1), "floor must be >= 0"),
        (lambda: CorrelatedNoise(autocovariance(2)[0]).whiten(rand(1, 3, 4, 4)), "does not fit"),
        (lambda: CorrelatedNoise.from_kernel(torch.zeros(3, 3), 0.1), "not all 0"),
        (lambda: CorrelatedNoise.from_kernel(torch.ones(3, 3), -0.1), "must be > 0"),
        (lambda: PoissonNoise(-3), "peak must be > 0"),
        (lambda: SignalDependentNoise(0), "gain must be > 0"),
        (lambda: SignalDependentNoise(0.1, -1), "offset must be >= 0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(SettingError, match=message):
        call()
