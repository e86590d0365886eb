import math

import pytest
import torch
from gaussians import generator, noise
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.priors.elbo import add_training_noise
from genprior.priors.glow import Glow
from genprior.priors.nets.flows import ActNorm, Coupling, Mixing
from genprior.priors.nets.reversible import Chain

SMALL = {"channels": 1, "levels": 2, "depth": 2, "width": 6}
KINDS = ["glow", "realnvp"]


def prior(scale: float = 0.1, **settings) -> Glow:
    """A flow in float64 that is far from linear."""
    torch.manual_seed(0)
    model = Glow(**(SMALL | settings)).double()
    for p in model.parameters():
        p.data += scale * torch.randn(p.shape, generator=generator(p.numel()), dtype=p.dtype)
    return model.requires_grad_(False)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(1), dtype=torch.float64)


def log_det(function, x: Tensor) -> Tensor:
    """log |det| of the Jacobian of a map of one image, by autograd."""
    jacobian = torch.autograd.functional.jacobian(lambda v: function(v).flatten(), x)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel()))[1]


@pytest.mark.parametrize("halves", ["first", "last", "black", "white"])
@pytest.mark.parametrize("layer", [ActNorm, Mixing, Coupling])
def test_log_determinants_of_the_layers(layer, halves):
    torch.manual_seed(0)
    f = (layer(4, 5, halves) if layer is Coupling else layer(4)).double()
    for p in f.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    x = images(2, 4, 3, 2)
    y, found = f(x)
    for i in range(2):
        exact = log_det(lambda v: f(v)[0], x[i : i + 1])
        assert found[i].item() == pytest.approx(exact.item(), abs=1e-8)
    torch.testing.assert_close(f.inverse(y), x, rtol=0, atol=1e-11)


@pytest.mark.parametrize("logit", [0.0, 0.05])
@pytest.mark.parametrize("kind", KINDS)
def test_the_density_matches_the_jacobian_of_the_encoder(kind, logit):
    model = prior(architecture=kind, logit=logit)
    x = 1.4 * images(2, 1, 4, 8) - 0.2  # some values are below 0 or above 1
    torch.testing.assert_close(model.decode(model.encode(x), x.shape), x, rtol=0, atol=1e-9)
    found = model.log_prob(x)
    for i in range(2):
        one = x[i : i + 1]
        z = model.encode(one)
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
        exact = normal + log_det(model.encode, one)
        assert found[i].item() == pytest.approx(exact.item(), abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_is_exact_in_float32(kind):
    model = prior(0.02, channels=3, levels=3, depth=8, width=16, architecture=kind).float()
    x = images(2, 3, 32, 24).float()
    z = model.encode(x)
    assert z.shape == model.latent_shape(x.shape)
    assert (model.decode(z, x.shape) - x).abs().max() < 1e-4
    z = torch.randn(z.shape, generator=generator(2))
    assert (model.encode(model.decode(z, x.shape)) - z).abs().max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_latents_far_from_the_training_data_decode_to_finite_images(kind):
    model = prior(0.1, channels=3, levels=3, depth=8, width=16, architecture=kind).float()
    shape = torch.Size((2, 3, 32, 24))
    z = 20 * torch.randn(model.latent_shape(shape), generator=generator(2))
    assert model.decode(z, shape).isfinite().all()


def test_a_density_integrates_to_one():
    # importance sampling with a wide normal distribution on images of 2 x 2 numbers
    model = prior(levels=1)
    count, wide = 200_000, 1.5
    e = torch.randn(count, 4, generator=generator(0), dtype=torch.float64)
    centre = model.decode(torch.zeros(1, 4).double(), torch.Size((1, 1, 2, 2))).flatten()
    spread = model.decode(e[:2000], torch.Size((2000, 1, 2, 2))).flatten(1)
    root = torch.linalg.cholesky(wide**2 * (spread - centre).mT @ (spread - centre) / 2000)
    law = torch.distributions.MultivariateNormal(centre, scale_tril=root)
    x = centre + e @ root.mT
    weight = (model.log_prob(x.reshape(-1, 1, 2, 2)) - law.log_prob(x)).exp()
    assert weight.mean().item() == pytest.approx(1, abs=5 * weight.std().item() / count**0.5)
    assert weight.std() < 5


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (31, 18)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_grey_and_colour(size, channels):
    model, x = prior(channels=3), images(2, channels, *size)
    z = model.encode(x)
    assert z.shape == model.latent_shape(x.shape)
    torch.testing.assert_close(model.decode(z, x.shape), x, rtol=0, atol=1e-9)
    log_p = model.log_prob(x)
    assert log_p.shape == (2,) and log_p.isfinite().all()
    torch.testing.assert_close(model.log_prob(x[1:])[0], log_p[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_give_the_same_gradients(kind):
    plain, lean = (prior(architecture=kind, recompute=r).requires_grad_() for r in (False, True))
    x, z = images(2, 1, 8, 4).requires_grad_(), images(2, 32).requires_grad_()
    weight = images(2, 1, 8, 4)
    for value in (lambda m: m.log_prob(x), lambda m: m.decode(z, x.shape) * weight):
        gradients = [
            torch.autograd.grad(
                value(m).sum(), [x, z, *m.parameters()], allow_unused=True
            )
            for m in (plain, lean)
        ]
        for a, b in zip(*gradients, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_recompute_stores_no_activations():
    def saved(recompute: bool) -> int:
        torch.manual_seed(0)
        layers = [Coupling(4, 8, "last") for _ in range(10)]
        chain, total = Chain(layers, recompute), 0

        def count(t: Tensor) -> Tensor:
            nonlocal total
            total += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            chain(torch.rand(1, 4, 16, 16).requires_grad_())
        return total

    assert saved(True) == 4 * 16 * 16 < saved(False) / 50


def test_the_first_batch_sets_the_actnorms():
    torch.manual_seed(0)
    chain = Chain([ActNorm(3), Mixing(3)])
    chain.layers[0].pending = True
    x = 0.3 + 2 * images(8, 3, 5, 4).float()
    y = chain.layers[0](x)[0]
    std, mean = torch.std_mean(y, dim=(0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(std, torch.ones(3), rtol=0, atol=1e-5)
    model = Glow(**SMALL)
    model.losses(images(16, 1, 8, 8).float(), Noise(0, range(16)))
    first = [p.clone() for p in model.parameters()]
    model.losses(2 * images(16, 1, 8, 8).float(), Noise(0, range(16)))
    assert model.initialised == 1 and all(map(torch.equal, first, model.parameters()))


def test_one_number_a_channel_sets_the_actnorms_too():
    layer = ActNorm(2)
    layer.pending = True
    x = torch.tensor([0.3, -2.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(layer(x)[0], torch.zeros(1, 2, 1, 1))
    assert layer.log_scale.abs().max() == 0


def test_bits_per_dim_of_a_gaussian_law():
    # Couplings start at 0 and mixing is orthogonal: an untrained flow of one level is the
    # normal distribution set by its actnorms; 8-bit values then cost its entropy.
    model = Glow(1, levels=1, depth=1, width=2).double()
    model.levels[0].after.layers[0].log_scale.data.fill_(-math.log(0.1))
    x = (0.5 + 0.1 * torch.randn(4000, 1, 2, 2, generator=generator(3))).double()
    x = (255 * x).round() / 255
    bits = model.bits_per_dim(x, noise(x)).mean().item()
    entropy = 0.5 * math.log2(2 * math.pi * math.e * (0.1**2 + 1 / 12 / 255**2))
    assert bits == pytest.approx(entropy + math.log2(255), abs=0.02)


def test_training_with_noise_minimises_the_bits_of_noisy_images():
    model, x = prior(noise=0.2), images(3, 1, 8, 8)
    numbers = noise(x)
    model.prepare(x, noise(x))
    loss = model.losses(x, noise(x))["flow"]
    noisy = add_training_noise(x, 0.2, numbers)
    assert 0.01 < (noisy - x).std() < 0.2
    torch.testing.assert_close(loss, model.bits_per_dim(noisy, numbers).mean())


def test_it_learns_a_law_better_than_any_gaussian():
    # the contrast of an image is low or high: no Gaussian can model that
    torch.manual_seed(0)
    model = Glow(1, levels=1, depth=4, width=16)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    random, numbers = generator(0), Noise(0, range(64))
    contrasts = torch.tensor([0.03, 0.2])

    def batch(count: int) -> Tensor:
        contrast = contrasts[torch.randint(2, (count, 1, 1, 1), generator=random)]
        return 0.5 + contrast * torch.randn(count, 1, 4, 4, generator=random)

    def log_normal(x: Tensor, std: float) -> Tensor:
        return torch.distributions.Normal(0.5, std).log_prob(x).flatten(1).sum(dim=1)

    for _ in range(100):
        optimizer.zero_grad()
        model.losses(batch(64), numbers)["flow"].backward()
        optimizer.step()
    x = batch(1000)
    with torch.no_grad():
        found = model.log_prob(x).mean()
    gaussian = log_normal(x, contrasts.square().mean().sqrt().item()).mean()
    truth = torch.stack([log_normal(x, s) for s in contrasts.tolist()]).logsumexp(0) - math.log(2)
    assert gaussian + 3 < found < truth.mean() + 0.5


def test_errors():
    with pytest.raises(ValueError, match="levels must be a whole number in 1 ... 16, got 0"):
        Glow(levels=0)
    with pytest.raises(ValueError, match="'glow' or 'realnvp', got 'nice'"):
        Glow(architecture="nice")
    with pytest.raises(ValueError, match=r"0 or in \[0.01, 0.5\), got 0.5"):
        Glow(logit=0.5)
    with pytest.raises(ValueError, match="noise must be >= 0 and finite, got -1"):
        Glow(noise=-1)
    with pytest.raises(ValueError, match="got 4 channels: convert"):
        prior(channels=3).log_prob(images(1, 4, 8, 8))
    with pytest.raises(ValueError, match="got 2 channels: convert"):
        prior(channels=3).decode(images(1, 192), torch.Size((1, 2, 8, 8)))
