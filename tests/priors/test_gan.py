import pytest
import torch
from gaussians import generator, noise
from torch import Tensor

from genprior.api.factory import load_prior
from genprior.core.random_streams import Noise
from genprior.inverse.optimization.csgm import CSGM
from genprior.operators.denoising import Denoising
from genprior.priors.gan import GAN
from genprior.priors.nets.stylegan import StyleLayer
from genprior.training.loop import Settings, fit

SMALL = {"channels": 1, "latent": 3, "widths": (4, 6)}
LOSSES = ["minimax", "nonsaturating", "wgan-clip", "wgan-gp"]
STYLE = {**SMALL, "size": (8, 12), "architecture": "style"}


def prior(scale: float = 0.1, **settings) -> GAN:
    torch.manual_seed(0)
    model = GAN(**(SMALL | settings)).double()
    for p in model.parameters():
        p.data += scale * torch.randn(p.shape, generator=generator(p.numel()), dtype=p.dtype)
    return model.eval()


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(1), dtype=torch.float64)


def normals(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(2), dtype=torch.float64)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_losses_are_those_of_the_papers(loss):
    model, x = prior(loss=loss, strength=0.05 if loss == "wgan-clip" else 7.0), images(5, 1, 8, 8)
    found = model.losses(x, noise(x))
    numbers = noise(x)
    z = numbers.normal(x.new_empty(5, 3, 2, 2))
    fake, real = 2 * model.decode(z, x.shape) - 1, 2 * x - 1
    D = model.critic
    if loss in ("minimax", "nonsaturating"):
        s = torch.sigmoid
        critic = (-s(D(real)).log() - (1 - s(D(fake))).log()).mean()
        wanted = (1 - s(D(fake))).log() if loss == "minimax" else -s(D(fake)).log()
        assert found["generator"].item() == pytest.approx(wanted.mean().item())
    else:
        critic = (D(fake) - D(real)).mean()
        assert found["generator"].item() == pytest.approx(-D(fake).mean().item())
    if loss == "wgan-gp":
        share = numbers.uniform(x[:, :1, :1, :1])
        for i in range(5):
            u = real[i : i + 1] + share[i] * (fake[i : i + 1] - real[i : i + 1])
            slope = torch.autograd.functional.jacobian(lambda v: D(v)[0], u.detach())
            critic = critic + 7 * (slope.norm() - 1) ** 2 / 5
    assert found["critic"].item() == pytest.approx(critic.item(), rel=1e-9)
    if loss == "wgan-clip":
        assert max(p.abs().max() for p in D.parameters()) == 0.05


def test_the_critic_is_clipped_at_the_default_of_the_paper_before_any_update():
    model, x = prior(loss="wgan-clip"), images(2, 1, 8, 8)
    assert model.config["strength"] == 0.01 and GAN(loss="wgan-gp").config["strength"] == 10
    model.losses_of(["generator"], x, noise(x))
    assert max(p.abs().max() for p in model.critic.parameters()) == 0.01


@pytest.mark.parametrize("count", [1, 2, 16])
def test_style_statistics_do_not_drift_for_any_batch_size(count):
    model, random = prior(**STYLE), generator(5)
    z = torch.randn(4000, model.latent_shape((1, 1, 8, 12))[1], generator=random).double()
    with torch.no_grad():
        w = model.generator.map(z[:, : model.latent])
    model.w_mean.copy_(w.mean(dim=0)), model.w_std.copy_(w.std(dim=0))
    for part in z.split(count):
        model._update_style_statistics(part)
    # 5 standard deviations of the moving average
    error = 5 * (0.01 / count) ** 0.5
    assert ((model.w_mean - w.mean(0)) / w.std(0)).abs().max() < error
    assert (model.w_std / w.std(0) - 1).abs().max() < error


def test_a_shorter_z_is_another_style_and_the_map_is_smooth_at_0():
    model = prior(**STYLE)
    z = normals(1, 3)
    assert not torch.allclose(model.generator.map(z), model.generator.map(z / 2))
    slope = torch.autograd.functional.jacobian(model.generator.map, torch.zeros_like(z))
    assert slope.abs().max() < 10


def test_the_critic_does_not_train_the_generator_and_takes_turns():
    model, x = prior(loss="wgan-gp", critic_steps=3), images(2, 1, 8, 8)
    loss = model.losses_of(["critic"], x, noise(x))
    assert list(loss) == ["critic"]
    loss["critic"].backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert model.updates() == [["critic"]] * 3 + [["generator"]]
    assert model.adam("critic") == {"betas": (0.0, 0.9)}


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (31, 18)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_grey_and_colour(size, channels):
    model, shape = prior(channels=3), torch.Size((2, channels, *size))
    z = normals(*model.latent_shape(shape))
    x = model.decode(z, shape)
    assert x.shape == shape and ((x >= 0) & (x <= 1)).all() and x.std() > 0
    torch.testing.assert_close(model.decode(z[1:], torch.Size((1, *shape[1:])))[0], x[1])
    h = z
    for layer in model.layers(shape):
        h = layer(h)
    assert torch.equal(h, x)


def test_a_modulated_convolution_is_a_convolution_with_other_weights():
    torch.manual_seed(0)
    layer = StyleLayer(3, 4, 5).double()
    layer.strength.data.fill_(0.3)
    h, w, n = normals(2, 3, 6, 5), normals(2, 5), normals(2, 1, 6, 5)
    found = layer(h, w, n)
    for i in range(2):
        s = layer.affine(w[i])
        weight = layer.weight * s[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        y = torch.nn.functional.conv2d(h[i : i + 1], weight, padding=1)
        y = torch.nn.functional.leaky_relu(y + layer.bias + 0.3 * n[i], 0.2)
        torch.testing.assert_close(found[i], y[0], rtol=0, atol=1e-10)


def test_styles_of_a_new_network_vary_as_latents_do():
    torch.manual_seed(0)
    model = GAN(**{**STYLE, "latent": 32})
    w = model.generator.map(torch.randn(500, 32, generator=generator(3)))
    assert 0.4 < w.std(dim=0).mean() < 1.2


def test_every_style_space_contains_the_smaller_ones():
    model = prior(**STYLE)
    model.w_mean.copy_(normals(3))
    model.w_std.copy_(normals(3).abs())
    shape = torch.Size((2, 1, 8, 12))
    noise = model.generator.noise
    z = normals(*model.latent_shape(shape))
    x = model.decode(z, shape)
    w = (model.generator.map(z[:, :3]) - model.w_mean) / model.w_std
    in_w, in_w_plus = model.in_space("w"), model.in_space("w+")
    torch.testing.assert_close(in_w.decode(torch.cat((w, z[:, 3:]), 1), shape), x)
    count = len(model.generator.layers)
    assert in_w_plus.latent_shape(shape) == (2, 3 * count + noise)
    torch.testing.assert_close(
        in_w_plus.decode(torch.cat((w.repeat(1, count), z[:, 3:]), 1), shape), x
    )
    assert model.space == "z" and in_w.generator is model.generator
    # every noise input has an effect
    for p in model.generator.layers:
        p.strength.data.fill_(1.0)
    J = torch.autograd.functional.jacobian(lambda v: model.decode(v, shape).sum(), z)
    assert (J[:, 3:] != 0).all()


def test_truncation_moves_styles_towards_their_mean():
    model, shape = prior(**STYLE), torch.Size((2, 1, 8, 12))
    z = normals(*model.latent_shape(shape))
    none = model.truncated(0.0).decode(z, shape)
    mean = model.in_space("w").decode(torch.cat((0 * z[:, :3], z[:, 3:]), 1), shape)
    torch.testing.assert_close(none, mean)
    torch.testing.assert_close(model.truncated(1.0).decode(z, shape), model.decode(z, shape))
    message = r"needs a style-based generator and psi in \[0, 1\], got psi = 0.5"
    with pytest.raises(ValueError, match=message):
        prior().truncated(0.5)


@pytest.mark.parametrize("space", ["w", "w+"])
def test_styles_are_searched_in_their_spaces(space):
    model, shape = prior(0.3, **STYLE), torch.Size((1, 1, 8, 12))
    model.w_std.copy_(normals(3).abs())
    decoder = model.in_space(space)
    x = decoder.decode(1.5 * normals(*decoder.latent_shape(shape)), shape)
    solver = CSGM(steps=60, restarts=2, optimiser="lbfgs", penalty=0.0)
    found = solver(x, Denoising(), decoder, 0.0, Noise(0, [0]))
    assert (found - x).square().sum() < 0.05 * (x - x.mean()).square().sum()


class Levels:
    """Dataset of constant images, bright or dark: a distribution with two modes."""

    def batch(self, number: int, count: int) -> Tensor:
        random = generator(number)
        level = 0.2 + 0.6 * (torch.rand(count, 1, 1, 1, generator=random) < 0.5)
        return (level + 0.02 * torch.randn(count, 1, 8, 8, generator=random)).clamp(0, 1)


@pytest.mark.parametrize("settings", [
    {"loss": "nonsaturating"},
    pytest.param({"loss": "wgan-gp", "critic_steps": 2}, marks=pytest.mark.slow),
    pytest.param({"loss": "wgan-clip", "strength": 0.1}, marks=pytest.mark.slow),
    pytest.param({"architecture": "style"}, marks=pytest.mark.slow),
], ids=str)
def test_it_learns_two_modes(settings, tmp_path):
    torch.manual_seed(0)
    model = GAN(1, 4, (8, 8), size=(8, 8), **settings)
    steps = 150 if settings == {"loss": "nonsaturating"} else 300
    length = Settings(steps=steps, batch=32, lr=2e-3, warmup=1, ema=0.9, dtype="float32")
    folder = fit("gan", model, Levels(), tmp_path, length)
    loaded, shape = load_prior(folder), torch.Size((200, 1, 8, 8))
    z = torch.randn(loaded.latent_shape(shape), generator=generator(0))
    level = loaded.decode(z, shape).mean(dim=(1, 2, 3))
    near = torch.minimum((level - 0.2).abs(), (level - 0.8).abs())
    assert near.median() < 0.1
    if not loaded.style:  # the tiny style-based generator collapses onto one mode
        assert 0.1 < (level > 0.5).float().mean() < 0.9


def test_a_transposed_convolution_is_the_adjoint_of_a_strided_one():
    model = prior(upsampling="transposed")
    layer = model.generator.layers[1][0]
    h, v = normals(2, layer.in_channels, 3, 4), normals(2, layer.out_channels, 6, 8)
    up = torch.nn.functional.conv_transpose2d(h, layer.weight, stride=2, padding=1)
    down = torch.nn.functional.conv2d(v, layer.weight, stride=2, padding=1)
    assert (up * v).sum().item() == pytest.approx((h * down).sum().item())
    torch.testing.assert_close(layer(h), up + layer.bias[:, None, None])
    shape = torch.Size((2, 1, 8, 8))
    assert model.decode(normals(*model.latent_shape(shape)), shape).shape == shape
    assert model.config["upsampling"] == "transposed"


def test_errors():
    with pytest.raises(ValueError, match="'dcgan' or 'style', got 'big'"):
        GAN(architecture="big")
    with pytest.raises(ValueError, match="'nearest' or 'transposed', got 'bicubic'"):
        GAN(upsampling="bicubic")
    with pytest.raises(ValueError, match="style-based generator upsamples nearest neighbours"):
        GAN(architecture="style", size=(8, 8), upsampling="transposed")
    with pytest.raises(ValueError, match="one of minimax, nonsaturating, wgan-clip, wgan-gp"):
        GAN(loss="hinge")
    with pytest.raises(ValueError, match="critic_steps must be at least 1 and strength > 0"):
        GAN(critic_steps=0)
    with pytest.raises(ValueError, match="needs the size of the images"):
        GAN(architecture="style")
    with pytest.raises(ValueError, match=r"multiples of 8 for 3 levels, got \[28, 28\]"):
        GAN(size=(28, 28))
    with pytest.raises(ValueError, match="space must be 'z'.* got 'w'"):
        GAN(space="w")
    with pytest.raises(ValueError, match="8 x 12 pixels .* got 8 x 8"):
        prior(**STYLE).latent_shape(torch.Size((1, 1, 8, 8)))
