import numpy as np
import pytest
import torch

from genprior.noise import Noise
from genprior.priors.ddpm import DDPM

SMALL = {"widths": (8, 16), "blocks": (1, 1)}


def prior(**settings) -> DDPM:
    torch.manual_seed(0)
    return DDPM(**(SMALL | settings))


@pytest.mark.parametrize("objective", ["eps", "v", "edm"])
def test_preconditioning_gives_targets_of_unit_variance(objective):
    # data of variance 1 on [-1, 1], or of 0.25 for edm, which is what each assumes
    sd = 0.5 if objective == "edm" else 1.0
    u = sd * torch.randn(200_000, dtype=torch.float64)
    noise = torch.randn_like(u)
    for level in (0.05, 0.6, 7.0):
        s = torch.tensor(level, dtype=torch.float64)
        c_skip, c_out, c_in = prior(objective=objective).preconditioning(s)
        target = (u - c_skip * (u + s * noise)) / c_out
        assert target.var() == pytest.approx(1, rel=0.02)
        assert (c_in * (u + s * noise)).var() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("objective", ["eps", "v", "edm"])
def test_the_loss_is_the_weighted_error_of_the_denoiser(objective):
    model = prior(objective=objective).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.1)
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
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


def test_it_learns_the_denoiser_of_a_known_law():
    # images of one random colour: E[x0 | x] is in closed form and far from the input
    torch.manual_seed(0)
    model = DDPM(widths=(16, 32), blocks=(1, 1), noise_mean=-1.5, noise_std=0.1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator, noise = torch.Generator().manual_seed(0), Noise(0, range(16))
    for _ in range(150):
        x = 0.5 + 0.2 * torch.randn(16, 3, 1, 1, generator=generator).expand(-1, -1, 8, 8)
        optimizer.zero_grad()
        model.losses(x, noise)["network"].backward()
        optimizer.step()
    x = 0.5 + 0.2 * torch.randn(256, 3, 1, 1, generator=generator).expand(-1, -1, 8, 8)
    sigma = np.exp(-1.5)
    y = x + sigma * torch.randn(x.shape, generator=generator)
    exact = 0.5 + 0.04 / (0.04 + sigma**2 / 64) * (y.mean((2, 3), keepdim=True) - 0.5)
    with torch.no_grad():
        error = (model.denoise(y, sigma) - exact).square().mean().sqrt()
    assert error < 0.25 * (y - exact).square().mean().sqrt()


def test_errors():
    with pytest.raises(ValueError, match="'eps', 'v' or 'edm', got 'x0'"):
        DDPM(objective="x0")
    with pytest.raises(ValueError, match="got 4 channels"):
        prior().denoise(torch.rand(1, 4, 8, 8), 0.1)
    with pytest.raises(ValueError, match="one number for each of the 2 images"):
        prior().denoise(torch.rand(2, 3, 8, 8), torch.ones(3))
