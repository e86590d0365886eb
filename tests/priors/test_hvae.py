import math

import pytest
import torch
from gaussians import generator, noise
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.priors.hvae import HVAE

SMALL = {"latent": 2, "widths": (4, 6, 6), "groups": (1, 0, 2)}


def prior(scale: float = 0.15, **settings) -> HVAE:
    torch.manual_seed(0)
    model = HVAE(**(SMALL | settings)).double()
    for p in model.parameters():
        p.data += scale * torch.randn(p.shape, generator=generator(p.numel()), dtype=p.dtype)
    return model.requires_grad_(False)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(1), dtype=torch.float64)


def test_the_bound_matches_a_likelihood_estimated_from_prior_samples():
    # log p(x) by averaging p(x | z) over the prior, for images of one grey pixel
    model = prior(0.3, channels=1, widths=(4, 4), groups=(1, 1), latent=1)
    model.log_std.data.fill_(math.log(0.3))
    for level in model.levels:  # near to the prior, so that the weights are even
        for p in level[0].residual.parameters():
            p.data *= 0.05
    x = torch.tensor([0.3, 0.55]).double().reshape(2, 1, 1, 1)
    count = 40_000
    z = torch.randn(model.latent_shape(torch.Size((count, 1, 1, 1))), generator=generator(0))
    means = model.decode(z.double(), torch.Size((count, 1, 1, 1))).flatten()
    for i, value in enumerate(x.flatten()):
        p = torch.distributions.Normal(means, 0.3).log_prob(value).exp()
        estimate = p.mean()
        error = 5 * p.std() / math.sqrt(count) / estimate
        many = x[i : i + 1].expand(16_000, 1, 1, 1)
        weights = model.log_likelihood(many, 1, noise(many)).exp()
        error = error + 5 * weights.std() / math.sqrt(16_000) / estimate
        assert weights.mean().item() == pytest.approx(estimate.item(), rel=error.item())
        assert error < 0.3
        assert weights.log().mean() < estimate.log()


def test_the_loss_is_the_bound_of_one_sample_in_the_mean():
    model, x = prior(), images(1, 3, 4, 4).expand(3000, -1, -1, -1)
    loss = -48 * model.losses(x, noise(x))["hvae"]
    bound = model.log_likelihood(x, 1, noise(x, 1))
    assert loss.item() == pytest.approx(
        bound.mean().item(), abs=10 * bound.std().item() / math.sqrt(3000)
    )


def test_images_are_made_of_the_latents_of_all_levels():
    model, x = prior(), images(2, 3, 9, 6)
    z = model.encode(x)
    assert z.shape == model.latent_shape(x.shape)
    torch.testing.assert_close(model.decode(z, x.shape), model.reconstruct(x))
    cold = model.reconstruct(x, 1e-4)
    torch.testing.assert_close(cold, model.decode(0 * z, x.shape), rtol=0, atol=1e-6)
    shapes = model.group_shapes(x.shape)
    assert shapes == [(2, 3, 2), (2, 3, 2), (2, 12, 8)]
    kept = 0
    for fixed in range(4):
        other = model.resample(z, x.shape, fixed, generator(0))
        same = (other == z).all(dim=0)
        assert same[:kept].all() and not same[kept:].any()
        kept += math.prod(shapes[fixed]) if fixed < 3 else 0


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (31, 18)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_grey_and_colour(size, channels):
    model, x = prior(), images(2, channels, *size)
    x_hat = model.decode(model.encode(x), x.shape)
    assert x_hat.shape == x.shape and x_hat.isfinite().all()
    alone = model.reconstruct(x[1:])
    torch.testing.assert_close(alone[0], x_hat[1])


def test_it_learns_what_is_coarse_and_what_is_fine():
    torch.manual_seed(0)
    model, random = HVAE(1, 2, (10, 10), (1, 1)), generator(0)
    numbers = Noise(0, range(32))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)

    def draw(count: int) -> Tensor:
        level = 0.5 + 0.2 * torch.randn(count, 1, 1, 1, generator=random)
        return level + 0.03 * torch.randn(count, 1, 4, 4, generator=random)

    for _ in range(160):
        optimizer.zero_grad()
        model.losses(draw(32), numbers)["hvae"].backward()
        optimizer.step()
    x = draw(300)
    S = 0.04 * torch.ones(16, 16) + 0.03**2 * torch.eye(16)
    law = torch.distributions.MultivariateNormal(torch.full((16,), 0.5), S)
    exact = law.log_prob(x.flatten(1)).mean()
    independent = torch.distributions.Normal(0.5, 0.2).log_prob(x).flatten(1).sum(1).mean()
    bound = model.log_likelihood(x, 20, noise(x)).mean()
    assert independent + 0.6 * (exact - independent) < bound < exact + 0.5


def test_errors():
    with pytest.raises(ValueError, match=r"for each of the 3 levels .* got \[1, 2\]"):
        HVAE(widths=(4, 4, 4), groups=(1, 2))
    with pytest.raises(ValueError, match="beta must be > 0, got 0"):
        HVAE(beta=0)
    with pytest.raises(ValueError, match="noise must be >= 0, got -0.1"):
        HVAE(noise=-0.1)
