import numpy as np
import pytest
import torch

from genprior.core.errors import SettingError
from genprior.core.pull_push import density, pull_push
from genprior.core.random_streams import Noise
from genprior.priors.ddpm import DDPM, GUESS_STD, training_holes
from genprior.priors.external.callable import External
from genprior.priors.external.flow_matching import FlowMatching

SMALL = {"widths": (8, 16), "blocks": (1, 1)}


def prior(**settings) -> DDPM:
    torch.manual_seed(0)
    return DDPM(**(SMALL | settings))


@pytest.mark.parametrize("objective", ["eps", "v", "edm"])
def test_preconditioning_gives_targets_of_unit_variance(objective):
    # each objective assumes data of variance 1 on [-1, 1], or of 0.25 for edm
    sd = 0.5 if objective == "edm" else 1.0
    u = sd * torch.randn(200_000, dtype=torch.float64)
    noise = torch.randn_like(u)
    for level in (0.05, 0.6, 7.0):
        s = torch.tensor(level, dtype=torch.float64)
        c_skip, c_out, c_in = prior(objective=objective).preconditioning(s)
        target = (u - c_skip * (u + s * noise)) / c_out
        assert target.var() == pytest.approx(1, rel=0.02)
        assert (c_in * (u + s * noise)).var() == pytest.approx(1, rel=0.02)


def test_the_flow_objective_predicts_the_velocity_of_flow_matching():
    model = prior(objective="flow").double()
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.1)
    x, n = torch.rand(2, 3, 3, 8, 8, dtype=torch.float64).unbind()
    sigma = torch.tensor([0.01, 0.4, 7.0], dtype=torch.float64)
    t = (1 / (1 + 2 * sigma)).reshape(-1, 1, 1, 1)
    u = 2 * x - 1
    c_skip, c_out, c_in = model.preconditioning(1 / t - 1)
    u_noisy = u + (1 / t - 1) * n
    torch.testing.assert_close(c_in * u_noisy, t * u + (1 - t) * n)
    torch.testing.assert_close((u - c_skip * u_noisy) / c_out, u - n)

    def velocity(u_t, time):
        return model.network(u_t, ((1 - time) / time / 2).log() / 4)

    theirs = FlowMatching().denoise(velocity, (u_noisy + 1) / 2, sigma)
    torch.testing.assert_close(theirs, model.denoise((u_noisy + 1) / 2, sigma))

    levels = model.training_levels(torch.empty(20_000, 1, 1, 1).double(), Noise(0, range(20_000)))
    times, _ = (1 / (1 + 2 * levels)).sort()
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    assert (times - uniform).abs().max() < 1.63 / 20_000**0.5 + 0.01  # Kolmogorov; clamped ends


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("objective", ["eps", "v", "edm", "flow"])
def test_the_loss_is_the_weighted_error_of_the_denoiser(objective, size):
    model = prior(objective=objective).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.1)
    x = torch.rand(4, 3, *size, dtype=torch.float64)
    loss = model.losses(x, Noise(5, range(4)))["network"]

    noise = Noise(5, range(4))
    sigma = model.training_levels(x, noise)
    grey = noise.uniform(x[:, :1, :1, :1]) < 0.15
    n = noise.normal(x)
    x = torch.where(grey, x.mean(dim=1, keepdim=True), x)
    n = torch.where(grey, n[:, :1], n)
    x_hat = model.denoise(x + sigma.reshape(-1, 1, 1, 1) * n, sigma)
    c_out = model.preconditioning(2 * sigma)[1].reshape(-1, 1, 1, 1)
    assert loss.item() == pytest.approx((2 * (x_hat - x) / c_out).square().mean().item(), rel=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (31, 18)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_grey_and_colour(size, channels):
    x = torch.rand(2, channels, *size)
    x_hat = prior().denoise(x, torch.tensor([0.002, 50.0]))
    assert x_hat.shape == x.shape and x_hat.isfinite().all()


def test_without_noise_an_image_comes_back():
    x = torch.rand(1, 3, 8, 8)
    model = prior()
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.1)
    assert (model.denoise(x, 0.002) - x).abs().max() < 0.02


def learned(group, steps, teacher=None):
    """Returns a model trained on constant colour images, noisy images, and sigma."""
    torch.manual_seed(0)
    holes = group == "filler"
    model = DDPM(widths=(16, 32), blocks=(1, 1), noise_mean=-1.5, noise_std=0.1, holes=holes)
    if teacher is not None:
        model.distil(teacher)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator, noise = torch.Generator().manual_seed(0), Noise(0, range(16))
    for _ in range(steps):
        x = 0.5 + 0.2 * torch.randn(16, 3, 1, 1, generator=generator).expand(-1, -1, 8, 8)
        optimizer.zero_grad()
        model.losses(x, noise)[group].backward()
        optimizer.step()
    x = 0.5 + 0.2 * torch.randn(256, 3, 1, 1, generator=generator).expand(-1, -1, 8, 8)
    sigma = np.exp(-1.5)
    return model, x + sigma * torch.randn(x.shape, generator=generator), sigma


class Exact(torch.nn.Module):
    """Posterior mean of the constant images of `learned`."""

    is_inpainter, symmetries = False, range(8)

    def denoise(self, x, sigma):
        variance = 0.04 + sigma**2 / x[0, 0].numel()
        return 0.5 + 0.04 / variance * (x.mean((2, 3), keepdim=True) - 0.5).expand_as(x)


@pytest.mark.parametrize("teacher", [None, Exact()])
def test_it_learns_the_denoiser_of_a_known_law(teacher):
    # E[x0 | x] is in closed form and far from the input
    model, y, sigma = learned("network", 150, teacher)
    exact = Exact().denoise(y, sigma)
    with torch.no_grad():
        error = (model.denoise(y, sigma) - exact).square().mean().sqrt()
    assert error < 0.25 * (y - exact).square().mean().sqrt()


def crooked(**settings) -> DDPM:
    model = prior(holes=True, **settings).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.1)
    return model


def holes(size):
    """Returns a mask of unknown pixels: scattered ones, and a corner."""
    torch.manual_seed(1)
    unknown = torch.rand(2, 1, *size) < 0.4
    unknown[..., : size[0] // 2, : size[1] // 2] = True
    unknown[..., -1, -1] = False
    return unknown.double()


@pytest.mark.parametrize("size", [(1, 7), (5, 3), (31, 18)])
@pytest.mark.parametrize("channels", [1, 3])
def test_noiseless_known_pixels_are_unchanged(size, channels):
    model, unknown = crooked(), holes(size)
    x, sigma = torch.rand(2, channels, *size, dtype=torch.float64), torch.tensor([0.0, 0.3])
    x_hat = model.denoise_masked(x, sigma.double(), unknown)
    assert x_hat.shape == x.shape and x_hat.isfinite().all()
    exact = (unknown[0] == 0).expand_as(x[0])
    torch.testing.assert_close(x_hat[0][exact], x[0][exact], rtol=0, atol=1e-15)
    assert (x_hat[0] != x[0])[~exact].all() and (x_hat[1] != x[1]).all()


def test_the_loss_with_holes_is_the_weighted_error_of_uncertain_pixels():
    model = crooked()
    x = torch.rand(24, 3, 16, 24, dtype=torch.float64)
    loss = model.losses(x, Noise(5, range(24)))["filler"]

    noise = Noise(5, range(24))
    sigma = model.training_levels(x, noise).reshape(-1, 1, 1, 1)
    grey = noise.uniform(x[:, :1, :1, :1]) < 0.15
    n = noise.normal(x)
    x = torch.where(grey, x.mean(dim=1, keepdim=True), x)
    n = torch.where(grey, n[:, :1], n)
    unknown, exact = training_holes(x, noise)
    sigma = sigma.masked_fill(exact, 0)
    y = (pull_push(2 * (x + sigma * n) - 1, 1 - unknown) + 1) / 2
    x_hat = model.denoise_masked(y, sigma.flatten(), unknown)
    guess = GUESS_STD * density(1 - unknown).clamp(min=0.02) ** -0.25
    levels = torch.where(unknown > 0, (sigma**2 + guess**2).sqrt(), sigma).expand_as(x)
    errors = 2 * (x_hat - x) / model.preconditioning(2 * levels)[1]
    each = [e[level > 0].square().mean() for e, level in zip(errors, levels, strict=True)]
    assert loss.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-6)


def test_the_loss_with_holes_takes_any_size():
    model = crooked()
    x = torch.rand(24, 3, 13, 21, dtype=torch.float64)
    loss = model.losses(x, Noise(5, range(24)))["filler"]
    assert loss.isfinite() and loss > 0


def test_the_two_networks_are_trained_apart():
    model, x = crooked(), torch.rand(4, 3, 16, 16, dtype=torch.float64)
    assert set(model.groups()) == {"network", "filler"}
    losses = model.losses(x, Noise(0, range(4)))
    for name, loss in losses.items():
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for (key, _), grad in zip(model.named_parameters(), found, strict=True):
            assert (grad is None) == (not key.startswith(name))
    plain = prior().double()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "network" in k})
    alone = plain.losses(x, Noise(0, range(4)))
    assert set(plain.groups()) == {"network"} and list(alone) == ["network"]
    assert torch.equal(alone["network"], losses["network"])


def test_a_filler_starts_from_the_weights_of_the_network():
    plain, model = prior(), prior(holes=True)
    kept = model.inherit(plain.state_dict())
    assert set(model.state_dict()) - set(kept) == {"filler.holes.weight"}
    assert torch.equal(kept["filler.head.weight"], plain.network.head.weight)
    assert set(plain.inherit(model.state_dict())) == set(plain.state_dict())
    deeper = prior(blocks=(1, 2))
    assert set(deeper.inherit(plain.state_dict())) < set(deeper.state_dict())


def test_the_unrolled_network_starts_from_the_network_and_is_not_trained_with_it():
    plain, model = prior(), prior(holes=True, unrolled=True)
    assert model.is_unrolled and not plain.is_unrolled
    assert set(model.groups()) == {"network", "filler"}
    kept = model.inherit(plain.state_dict())
    assert set(model.state_dict()) - set(kept) == {"filler.holes.weight"}
    model.load_state_dict(kept, strict=False)
    x = torch.rand(2, 3, 9, 10)
    assert torch.equal(model.denoise_unrolled(x, 0.1), plain.denoise(x, 0.1))
    with torch.no_grad():
        model.unrolled.tail.bias += 1
    assert not torch.equal(model.denoise_unrolled(x, 0.1), model.denoise(x, 0.1))
    assert torch.equal(model.denoise(x, 0.1), plain.denoise(x, 0.1))
    with pytest.raises(NotImplementedError, match="External has no network for unrolled steps"):
        External(lambda x, sigma: x).denoise_unrolled(x, 0.1)


def test_half_the_training_images_have_holes():
    x = torch.zeros(3000, 3, 24, 32)
    unknown, exact = training_holes(x, Noise(0, range(3000)))
    assert unknown.shape == (3000, 1, 24, 32) and set(unknown.unique().tolist()) == {0, 1}
    holed = unknown.amax(dim=(1, 2, 3)) == 1
    assert holed.float().mean() == pytest.approx(0.5, abs=0.03)
    assert exact[holed].float().mean() == pytest.approx(0.7, abs=0.05)
    assert not exact[~holed].any()
    shares = unknown[holed].mean(dim=(1, 2, 3))
    assert shares.min() < 0.05 and shares.max() > 0.95


def test_holes_of_an_image_do_not_depend_on_its_batch():
    x = torch.zeros(6, 3, 24, 32)
    unknown, exact = training_holes(x, Noise(3, range(6)))
    for i in range(6):
        alone = training_holes(x[i : i + 1], Noise(3, [i]))
        assert torch.equal(alone[0][0], unknown[i]) and torch.equal(alone[1][0], exact[i])


def test_it_learns_to_fill_holes_of_a_known_law():
    model, y, sigma = learned("filler", 250)
    known = torch.rand(256, 1, 8, 8) < 0.5
    count = known.sum(dim=(2, 3), keepdim=True)
    mean = torch.where(known, y, 0).sum(dim=(2, 3), keepdim=True) / count
    exact = 0.5 + 0.04 / (0.04 + sigma**2 / count) * (mean - 0.5)
    with torch.no_grad():
        x_hat = model.denoise_masked(pull_push(y, known.float()), sigma, 1 - known.float())
    error = (x_hat - exact).square().mean().sqrt()
    assert error < 0.35 * (0.5 - exact).expand_as(y).square().mean().sqrt()


def test_errors():
    with pytest.raises(ValueError, match="one of eps, v, edm, flow, got 'x0'"):
        DDPM(objective="x0")
    with pytest.raises(ValueError, match="got 4 channels"):
        prior().denoise(torch.rand(1, 4, 8, 8), 0.1)
    with pytest.raises(ValueError, match="one number for each of the 2 images"):
        prior().denoise(torch.rand(2, 3, 8, 8), torch.ones(3))
    with pytest.raises(ValueError, match="one number for each of the 2 images"):
        prior(holes=True).denoise_masked(
            torch.rand(2, 3, 8, 8), torch.ones(3), torch.ones(2, 1, 8, 8)
        )


class Ramp(torch.nn.Module):
    """Denoiser that adds a ramp from left to right, so that its views differ."""

    is_inpainter, symmetries = True, range(8)

    def denoise(self, x, sigma):
        return x + torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)

    def denoise_masked(self, x, sigma, unknown):
        return self.denoise(x, sigma) + unknown


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_the_target_is_the_estimate_of_a_teacher_in_a_random_view(size):
    model = crooked()
    model.distil(Ramp())
    x, sigma = torch.rand(64, 3, *size, dtype=torch.float64), torch.zeros(64, 1, 1, 1)
    down, right = (torch.linspace(0, 1, n, dtype=torch.float64) for n in size)
    ramps = [right.expand(size), right.flip(0).expand(size)]
    if size[0] == size[1]:
        ramps += [down[:, None].expand(size), down.flip(0)[:, None].expand(size)]
    unknown = (torch.rand(64, 1, *size) < 0.3).double()
    for holes, extra in ((None, 0), (unknown, unknown)):
        target = model._target(2 * x - 1, 2 * x - 1, sigma, holes, Noise(0, range(64)))
        added = (target + 1) / 2 - x - extra
        distances = torch.stack([(added - r).abs().amax((1, 2, 3)) for r in ramps])
        assert (distances.min(dim=0).values < 1e-12).all()
        assert set(distances.argmin(dim=0).tolist()) == set(range(len(ramps)))


def test_a_teacher_is_used_in_training_only_and_is_no_part_of_the_prior():
    model, x = crooked(), torch.rand(4, 3, 16, 16, dtype=torch.float64)
    names = model.state_dict().keys()
    plain = model.losses(x, Noise(0, range(4)))
    model.distil(Ramp())
    assert model.state_dict().keys() == names
    taught = model.losses(x, Noise(0, range(4)))
    evaluated = model.eval().losses(x, Noise(0, range(4)))
    for part in ("network", "filler"):
        assert evaluated[part] == plain[part] != taught[part]


def test_a_teacher_without_an_inpainting_network_teaches_the_network_only():
    model, x = crooked(), torch.rand(4, 3, 16, 16, dtype=torch.float64)
    model.distil(prior().double())
    assert model.losses_of(["network"], x, Noise(0, range(4)))["network"] > 0
    with pytest.raises(SettingError, match="no inpainting network: train --only network"):
        model.losses(x, Noise(0, range(4)))
