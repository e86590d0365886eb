import math

import pytest
import torch
from gaussians import dense_cov, generator
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.priors.texture import Texture


def images(channels: int, count: int = 4) -> Tensor:
    shape = (count, channels, 6, 5)
    return torch.rand(shape, generator=generator(0), dtype=torch.float64)


def windowed(x: Tensor) -> Tensor:
    """Images minus their mean colour under a window of mean square 1, from its definition."""
    h, w = (
        torch.tensor([math.sin(math.pi * (i + 1) / (n + 1)) ** 2 for i in range(n)],
                     dtype=torch.float64)
        for n in x.shape[2:]
    )
    window = h[:, None] * w
    return (x - x.mean(dim=(0, 2, 3))[:, None, None]) * window / window.square().mean().sqrt()


def test_covariances_in_grey_are_the_mean_of_those_of_the_windowed_images():
    x = images(1)
    prior = Texture.from_images(x, margin=0, floor=0.0)
    S = dense_cov(prior, torch.Size((1, 1, 6, 5))).reshape(6, 5, 6, 5)
    v = windowed(x)[:, 0]
    for i in range(6):
        for j in range(5):
            expected = (v * v.roll((-i, -j), dims=(1, 2))).mean(dim=(1, 2)).mean()
            assert S[0, 0, i, j].item() == pytest.approx(expected.item(), abs=1e-12)
    assert prior.mean_colour.item() == pytest.approx(x.mean().item())


def test_channels_that_share_one_field_are_recovered_exactly():
    weights = torch.tensor([1.0, 0.5, -0.2]).double()
    x = 0.5 + weights[:, None, None] * (images(1) - 0.5)
    prior = Texture.from_images(x, margin=0)
    grey = Texture.from_images(x[:, :1], margin=0, floor=0.0)
    assert prior.floor < 1e-8
    S = dense_cov(prior, torch.Size((1, 3, 6, 5))).reshape(3, 30, 3, 30)
    expected = torch.einsum("a,ij,b->aibj", weights, dense_cov(grey, torch.Size((1, 1, 6, 5))),
                            weights)
    torch.testing.assert_close(S, expected, rtol=0, atol=1e-9)


def test_texture_and_floor_are_recovered_from_sampled_images():
    truth = Texture(
        0.1 * torch.rand(3, 3, 3, generator=generator(1), dtype=torch.float64),
        torch.tensor([0.2, 0.5, 0.6]).double(), margin=None, floor=0.04,
    )
    shape = torch.Size((400, 3, 48, 48))
    like = torch.empty(truth.latent_shape(shape), dtype=torch.float64)
    x = truth.decode(Noise(0, range(len(like))).normal(like), shape)
    found = Texture.from_images(x, margin=None)
    # the window mixes frequencies whose colours differ: 3 % here, a ninth of that at 144 pixels
    assert 0.04 < found.floor < 0.042
    near = torch.Size((1, 3, 2, 3))
    error = (dense_cov(found, near) - dense_cov(truth, near)).abs().max()
    assert error < 0.03 * dense_cov(truth, near).max()


def test_the_texton_is_compact():
    truth = Texture(torch.ones(1, 3, 3).double() / 9, torch.tensor([0.5]).double(), None, 0.0)
    shape = torch.Size((500, 1, 24, 24))
    like = torch.empty(truth.latent_shape(shape), dtype=torch.float64)
    x = truth.decode(Noise(0, range(len(like))).normal(like), shape)
    energy = Texture.from_images(x, floor=0.0).texton.square()[0]
    assert energy[9:16, 9:16].sum() > 0.97 * energy.sum()
