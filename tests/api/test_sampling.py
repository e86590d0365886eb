"""Unconditional samples of a prior by `sample`."""

from pathlib import Path

import pytest
import torch
from scipy import stats
from small import HOLE, Shrink, batch

from genprior import degrade, estimate_prior, load_prior, make_operator, restore, sample
from genprior.api.sampling import truncated_normal
from genprior.priors.checkpoint import save_checkpoint
from genprior.priors.ddpm import DDPM
from genprior.priors.gmm import GMM
from genprior.priors.vae import VAE


@pytest.fixture(scope="module")
def prior(weights: Path) -> DDPM:
    return load_prior(weights)


@pytest.mark.parametrize("channels, size", [(3, (9, 14)), (1, (1, 1))])
def test_sample(prior: DDPM, channels: int, size: tuple[int, int]) -> None:
    x = sample(prior, 3, size, channels, steps=2, seed=1)
    assert x.shape == (3, channels, *size) and 0 <= x.min() and x.max() <= 1
    assert torch.equal(sample(prior, 2, size, channels, steps=2, seed=1), x[:2])
    assert not torch.equal(sample(prior, 3, size, channels, steps=2, seed=2), x)
    assert not torch.equal(x[0], x[1])


def test_sample_follows_the_prior() -> None:
    x = sample(Shrink(), 1, (64, 64), steps=200)
    assert x.mean().item() == pytest.approx(0.5, abs=5 * 0.25 / x.numel() ** 0.5)
    # 200 steps, and the 4.5 % of pixels that clipping moves
    assert x.std().item() == pytest.approx(0.24, rel=0.05)


def test_sample_takes_channels_and_size_of_the_prior() -> None:
    mixture = GMM(torch.ones(1), torch.full((1, 1, 4, 5), 0.5), 0.01 * torch.eye(20)[None])
    assert sample(mixture, 2, steps=2).shape == (2, 1, 4, 5)
    grey = DDPM(channels=1, widths=(8, 16), blocks=(1, 1))
    assert sample(grey, 1, (8, 8), steps=1).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("about, size", [
    ({"sample_size": [12, 20]}, (12, 20)), ({"crop": 28, "scale": False}, (28, 28)),
    ({"crop": 28, "scale": True}, (256, 256)), ({"crop": 28}, (256, 256)), ({}, (256, 256)),
    ({"sample_size": [10**9, 10**9]}, (256, 256)), ({"sample_size": "x"}, (256, 256)),
    ({"crop": None, "scale": False}, (256, 256)),
])
def test_sample_takes_the_size_of_the_training(about: dict, size: tuple, tmp_path: Path) -> None:
    prior = VAE(latent=1, widths=(2,), blocks=0)
    save_checkpoint(tmp_path, "vae", prior.config, prior.state_dict(), about=about)
    assert sample(tmp_path).shape == (1, 3, *size)
    assert sample(tmp_path, size=(9, 8)).shape == (1, 3, 9, 8)


def test_sample_draws_digits_of_their_size() -> None:
    assert sample("ddpm:digits", steps=1).shape == (1, 1, 28, 28)


@pytest.mark.parametrize(
    "given, message",
    [({"count": 0}, "count must be at least 1, got 0"),
     ({"count": 2.0}, "count must be a whole number, got 2.0"),
     ({"size": (0, 3)}, "size must be at least 1, got 0"),
     ({"size": (8.5, 3)}, "size must be a whole number, got 8.5"),
     ({"size": 8}, r"size must be \(height, width\), got 8"),
     ({"seed": None}, "seed must be a whole number, got None"),
     ({"steps": 0}, "steps must be at least 1, got 0")],
)
def test_sample_checks_its_arguments(prior: DDPM, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(prior, **given)
    with pytest.raises(ValueError, match="eta must be between 0 .DDIM. and 1 .DDPM., got 2"):
        sample(prior, eta=2)


def test_nan_samples_are_an_error() -> None:
    with pytest.raises(FloatingPointError, match="lower the temperature"):
        sample("gan:digits", temperature=1e38)


@pytest.mark.parametrize("gaussian", [True, False])
def test_restore_and_sample_use_different_noise_of_a_seed(gaussian: bool) -> None:
    prior = estimate_prior("texture", batch(1), margin=0) if gaussian else Shrink()
    solver = {"solver": "gaussian"} if gaussian else {"solver": "diffpir", "steps": 100}
    operator, x = make_operator("inpaint", keep=HOLE), sample(prior, 4, HOLE.shape[-2:], seed=3)
    y = degrade(x, operator, 0.3, seed=3)
    same, *others = (
        (restore(y, operator, prior, noise_std=0.3, seed=seed, **solver).image - x).std().item()
        for seed in (3, 4, 5)
    )
    assert same > 0.9 * min(others)


@pytest.mark.parametrize("bound", [0.05, 0.7, 3.0])
def test_truncated_latents_have_the_law_of_scipy(bound: float) -> None:
    z = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    found = truncated_normal(z, bound)
    assert found.abs().max() <= bound and torch.equal(found.argsort(), z.argsort())
    test = stats.kstest(found.double().numpy(), stats.truncnorm(-bound, bound).cdf)
    plain = stats.kstest(z.double().numpy(), stats.norm.cdf)
    assert test.statistic == pytest.approx(plain.statistic, abs=1e-4)  # the map of the uniforms


def test_truncation_of_a_sample() -> None:
    prior = load_prior("vae:digits")
    x = sample(prior, 3, truncation=0.5, seed=1)
    assert x.std(dim=0).mean() < sample(prior, 3, seed=1).std(dim=0).mean()
    torch.testing.assert_close(sample(prior, 3, truncation=9.0, seed=1), sample(prior, 3, seed=1))
    with pytest.raises(ValueError, match="truncation must be > 0 and finite, got 0"):
        sample(prior, truncation=0)
