"""Terms of the evidence lower bound, against torch.distributions."""

import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from genprior.core.random_streams import Noise
from genprior.priors import elbo


def gaussian() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 2, 4, dtype=torch.float64), torch.randn(3, 2, 4, dtype=torch.float64)


def test_the_divergence_from_a_standard_normal() -> None:
    mean, log_std = gaussian()
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).flatten(1).sum(1)
    assert torch.allclose(elbo.divergence(mean, log_std), expected)


def test_its_estimate_is_the_ratio_of_densities() -> None:
    mean, log_std = gaussian()
    n = torch.randn_like(mean)
    z = mean + log_std.exp() * n
    ratio = Normal(mean, log_std.exp()).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
    assert torch.allclose(elbo.sampled_divergence(z, n, log_std), ratio.flatten(1).sum(1))


def test_log_densities() -> None:
    mean, log_std = gaussian()
    x = torch.randn_like(mean)
    expected = Normal(mean, log_std.exp()).log_prob(x).flatten(1).sum(1)
    assert torch.allclose(elbo.log_normal(x, mean, log_std.exp()), expected)
    bits = (x > 0).double()
    expected = Bernoulli(logits=mean).log_prob(bits).flatten(1).sum(1)
    assert torch.allclose(elbo.log_bernoulli(bits, mean), expected)


def test_the_importance_bound_is_the_log_of_the_mean_weight() -> None:
    weights = torch.rand(5, 3, dtype=torch.float64) * 1000 - 2000  # exp of these is 0
    calls = iter(weights)
    bound = elbo.importance_bound(lambda: next(calls), 5)
    assert torch.allclose(bound, weights.logsumexp(0) - torch.tensor(5.0).double().log())


def test_each_image_has_training_noise_of_its_own_level() -> None:
    x = torch.rand(200, 1, 40, 40, dtype=torch.float64)
    noise = elbo.add_training_noise(x, 0.5, Noise(0, range(200))) - x
    levels = noise.flatten(1).std(dim=1)
    assert levels.min() < 0.02 and 0.48 < levels.max() < 0.53
    assert abs(levels.mean() - 0.25) < 0.03  # of 200 uniform numbers, four standard errors
    assert elbo.add_training_noise(x, 0.0, Noise(0, range(200))) is x
