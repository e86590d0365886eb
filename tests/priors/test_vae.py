import math

import pytest
import torch
from autoencoders import linear_vae
from gaussians import dense_log_prob, generator, noise
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.priors.elbo import (
    add_training_noise,
    divergence,
    log_normal,
    sampled_divergence,
)
from genprior.priors.hvae import HVAE
from genprior.priors.vae import VAE

SHAPE = (2, 3, 2)
SMALL = {"latent": 2, "widths": (4, 6, 8), "blocks": 1}


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(1), dtype=torch.float64)


def normals(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(2), dtype=torch.float64)


def shaken(prior: VAE, scale: float = 0.3) -> VAE:
    for p in prior.parameters():
        if p.requires_grad:
            p.data += scale * torch.randn(p.shape, generator=generator(p.numel()), dtype=p.dtype)
    return prior


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_beta_weighs_the_divergence(likelihood):
    losses, x = {}, images(4, 3, 8, 8)
    for beta in (0.3, 1.0, 1.7):
        torch.manual_seed(0)
        model = shaken(VAE(**SMALL, likelihood=likelihood, std=0.5, beta=beta).double(), 0.1)
        losses[beta] = model.losses(x, noise(x))["vae"].item()
    assert losses[0.3] < losses[1.0]
    assert losses[1.0] == pytest.approx((losses[0.3] + losses[1.7]) / 2, rel=1e-9)


def test_the_divergence_has_its_closed_form_and_its_estimate_is_unbiased():
    mean, log_std = normals(3, 5), 0.5 * normals(3, 5).flip(0)
    law = torch.distributions.Normal(mean, log_std.exp())
    exact = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_std), exact, rtol=1e-12, atol=0)
    n = normals(20_000, 3, 5)
    z = mean + log_std.exp() * n
    found = torch.stack([sampled_divergence(z[:, i], n[:, i], log_std[i]) for i in range(3)], 1)
    assert ((found.mean(0) - exact).abs() < 5 * found.std(0) / math.sqrt(len(n))).all()


def test_the_bound_is_the_log_likelihood_where_the_encoder_is_exact():
    prior, b, S = linear_vae(SHAPE)
    x = images(4, *SHAPE)
    exact = dense_log_prob(x, b, S)
    for samples in (1, 3):
        found = prior.log_likelihood(x, samples, noise(x))
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-9)
    loss = prior.losses(x, noise(x))["vae"]
    assert loss.item() == pytest.approx(-exact.mean().item() / 12, abs=1e-10)
    many = x.repeat(5000, 1, 1, 1)
    loss = linear_vae(SHAPE, divergence="exact")[0].losses(many, noise(many))
    assert loss["vae"].item() == pytest.approx(-exact.mean().item() / 12, abs=0.01)


def test_more_samples_tighten_the_bound_of_a_wrong_encoder():
    prior, b, S = linear_vae(SHAPE)
    prior.coder.encode[1].bias.data += 0.3
    x = images(200, *SHAPE)
    exact = dense_log_prob(x, b, S).mean()
    bounds = [prior.log_likelihood(x, k, noise(x)).mean() for k in (1, 10, 300)]
    assert bounds[0] < bounds[1] < bounds[2] < exact + 0.05
    assert exact - bounds[2] < 0.1 < exact - bounds[0]


@pytest.mark.parametrize(
    ("architecture", "widths", "scale"), [("dense", (5,), 1.0), ("convolutional", (3, 4), 0.5)]
)
def test_probabilities_of_all_binary_images_sum_to_one(architecture, widths, scale):
    torch.manual_seed(0)
    law = {"likelihood": "bernoulli", "std": 0.1}
    prior = VAE(1, 2, widths, size=(2, 2), architecture=architecture, **law).double()
    shaken(prior, scale)
    for p in prior.coder.encode.parameters():
        p.data *= 0.1  # near to the prior, so that the weights are even
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).double().reshape(16, 1, 2, 2)
    p = prior.log_likelihood(x, 1500, noise(x)).exp()
    assert p.sum().item() == pytest.approx(1, abs=0.03) and p.max() > 2 * p.median()
    z = normals(3, 2)
    probability = prior.decode(z, torch.Size((3, 1, 2, 2)))
    assert ((probability > 0) & (probability < 1)).all()


def test_binary_images_are_drawn_from_grey_ones():
    torch.manual_seed(0)
    prior = VAE(1, 2, (5,), size=(1, 1), likelihood="bernoulli", std=0.1).double()
    for p in prior.parameters():
        p.data.zero_()
    prior.coder.decode[-1].bias.data.fill_(2.0)
    x = torch.full((20_000, 1, 1, 1), 0.3, dtype=torch.float64)
    p = 1 / (1 + math.exp(-2.0))
    expected = -(0.3 * math.log(p) + 0.7 * math.log(1 - p))
    assert prior.losses(x, noise(x))["vae"].item() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("family", [VAE, HVAE])
def test_a_standard_deviation_below_the_floor_can_rise_again(family):
    prior = family(channels=1)
    prior.log_std.data.fill_(math.log(1e-4))
    assert prior.decoder_std.item() == pytest.approx(1 / 255)
    x = images(2, 1, 16, 16).float()
    loss = sum(prior.losses(x, noise(x)).values())
    assert torch.autograd.grad(loss, prior.log_std)[0] < 0
    prior.log_std.data.fill_(math.log(0.2))
    assert prior.decoder_std.item() == pytest.approx(0.2)


@pytest.mark.parametrize("family", [VAE, HVAE])
def test_the_encoder_sees_the_training_noise_and_the_likelihood_the_clean_image(family):
    prior, x, seen = family(noise=0.5).double(), images(2, 3, 8, 8), []
    first = prior.head if family is HVAE else prior.coder.encode[0]
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for p in prior.parameters():  # the image decoded from any latent is grey
        p.data.zero_()
    loss = sum(prior.losses(x, noise(x)).values())
    noisy = add_training_noise(x, 0.5, noise(x))
    torch.testing.assert_close(seen[0], 2 * noisy - 1)
    expected = -log_normal(x, torch.full_like(x, 0.5), torch.ones(())).mean() / x[0].numel()
    torch.testing.assert_close(loss, expected)


def test_without_divergence_it_is_a_deterministic_autoencoder():
    torch.manual_seed(0)
    prior = shaken(VAE(**SMALL, std=0.5, beta=0).double(), 0.1)
    x = images(2, 3, 8, 12)
    loss = prior.losses(x, noise(x))["vae"]
    error = ((prior.decode(prior.encode(x), x.shape) - x) / prior.decoder_std).square().mean() / 2
    constant = prior.log_std + 0.5 * math.log(2 * math.pi)
    assert loss.item() == pytest.approx((error + constant).item(), rel=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (31, 18)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_grey_and_colour(size, channels):
    torch.manual_seed(0)
    prior, x = shaken(VAE(**SMALL).double(), 0.1), images(2, channels, *size)
    z = prior.encode(x)
    assert z.shape == prior.latent_shape(x.shape)
    x_hat = prior.decode(z, x.shape)
    assert x_hat.shape == x.shape and x_hat.isfinite().all()
    torch.testing.assert_close(prior.decode(z[1:], x[1:].shape)[0], x_hat[1])
    assert prior.log_likelihood(x, 2, noise(x)).isfinite().all()


def test_the_temperature_draws_latents_to_their_prior():
    prior, b, S = linear_vae(SHAPE)
    x, T = images(3, *SHAPE), 0.5
    # as with a prior of standard deviation T: E[W z | x] in closed form
    W = prior.coder.decode[0].weight / 2
    gram = T**2 * W @ W.mT + 0.2**2 * torch.eye(12, dtype=W.dtype)
    exact = b + (T**2 * W @ W.mT @ torch.linalg.solve(gram, (x.flatten(1) - b).mT)).mT
    torch.testing.assert_close(prior.reconstruct(x, T).flatten(1), exact, rtol=0, atol=1e-10)
    torch.testing.assert_close(prior.reconstruct(x), prior.decode(prior.encode(x), x.shape))


def test_it_learns_a_law_with_its_noise():
    # 16 numbers of two factors: the bound comes near to the exact likelihood, the std to 0.1
    torch.manual_seed(0)
    prior, random = VAE(1, 3, (24,), size=(4, 4), architecture="dense"), generator(0)
    numbers = Noise(0, range(128))
    W = 0.4 * torch.randn(2, 16, generator=random)
    optimizer = torch.optim.Adam(prior.parameters(), 1e-2)

    def draw(count: int) -> Tensor:
        z, n = (torch.randn(count, k, generator=random) for k in (2, 16))
        return (0.5 + z @ W + 0.1 * n).reshape(-1, 1, 4, 4)

    for _ in range(300):
        optimizer.zero_grad()
        prior.losses(draw(128), numbers)["vae"].backward()
        optimizer.step()
    x = draw(500)
    S = W.mT @ W + 0.01 * torch.eye(16)
    exact = dense_log_prob(x, torch.full((16,), 0.5), S).mean()
    bound = prior.log_likelihood(x, 50, noise(x)).mean()
    assert exact - 2 < bound < exact + 0.5
    assert prior.decoder_std.item() == pytest.approx(0.1, rel=0.2)


def test_errors():
    with pytest.raises(ValueError, match="'gaussian' or 'bernoulli', got 'poisson'"):
        VAE(likelihood="poisson")
    with pytest.raises(ValueError, match="'exact' or 'sampled', got 'no'"):
        VAE(divergence="no")
    with pytest.raises(ValueError, match="'learned' or at least 1/255, got 0"):
        VAE(std=0)
    with pytest.raises(ValueError, match="must be >= 0, got -1 and 0"):
        VAE(beta=-1)
    with pytest.raises(ValueError, match="'convolutional' or 'dense', got 'deep'"):
        VAE(architecture="deep")
    with pytest.raises(ValueError, match="needs the size of the images: set it"):
        VAE(architecture="dense")
    with pytest.raises(ValueError, match=r"multiples of 4 for 3 levels, got \[28, 30\]"):
        VAE(size=(28, 30))
    with pytest.raises(ValueError, match="28 x 28 pixels .* got 28 x 27: crop or resize"):
        VAE(1, 2, (4,), size=(28, 28)).encode(torch.zeros(1, 1, 28, 27))
    with pytest.raises(ValueError, match="got 2 channels: convert"):
        VAE(**SMALL).encode(torch.zeros(1, 2, 8, 8))
