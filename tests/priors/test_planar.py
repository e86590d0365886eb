import pytest
import torch
from gaussians import generator
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.optimization.csgm import CSGM
from genprior.operators.denoising import Denoising
from genprior.priors.planar import PlanarFlow

KINDS = ["planar", "radial"]


def flow(kind: str, dimension: int = 2, depth: int = 6) -> PlanarFlow:
    torch.manual_seed(0)
    model = PlanarFlow(dimension, depth, kind).double()
    for p in model.parameters():
        p.data += torch.randn(p.shape, generator=generator(p.numel() + 1), dtype=p.dtype)
    return model.requires_grad_(False)


def points(count: int, dimension: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 1, dimension, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_density_and_inverse_against_the_jacobian(kind, dimension):
    model, x = flow(kind, dimension), points(4, dimension)
    z = model.encode(x)
    for i in range(4):
        J = torch.autograd.functional.jacobian(model.encode, x[i : i + 1])
        log_det = torch.linalg.slogdet(J.reshape(dimension, dimension))[1]
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(z[i]).sum()
        assert model.log_prob(x)[i].item() == pytest.approx((normal + log_det).item(), abs=1e-10)
    torch.testing.assert_close(model.decode(z, x.shape), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_integrates_to_one(kind):
    axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)[:, None, None]
    mass = flow(kind).log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_has_the_gradient_of_its_inverse(kind):
    model, z = flow(kind), points(1)[0, 0]
    shape = torch.Size((1, 1, 1, 2))
    J = torch.autograd.functional.jacobian(lambda v: model.decode(v, shape).flatten(), z)
    x = model.decode(z, shape)
    inverse = torch.autograd.functional.jacobian(model.encode, x)
    product = J.reshape(2, 2) @ inverse.reshape(2, 2)
    torch.testing.assert_close(product, torch.eye(2, dtype=J.dtype), rtol=0, atol=1e-9)


def test_it_learns_two_clusters():
    torch.manual_seed(0)
    model, random = PlanarFlow(2, 8), generator(0)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)

    def draw(count: int) -> Tensor:
        side = torch.randint(2, (count, 1), generator=random) * 4.0 - 2
        noise = 0.4 * torch.randn(count, 2, generator=random)
        return (noise + torch.cat((side, 0 * side), dim=1))[:, None, None]

    for _ in range(200):
        optimizer.zero_grad()
        (-model.log_prob(draw(64)).mean()).backward()
        optimizer.step()
    x = draw(4000)
    S = torch.diag(torch.tensor([4.16, 0.16]))
    law = torch.distributions.MultivariateNormal(torch.zeros(2), S)
    gaussian = law.log_prob(x[:, 0, 0]).mean()
    normal = torch.distributions.Normal(0.0, 0.4)
    across = torch.logaddexp(normal.log_prob(x[..., 0] - 2), normal.log_prob(x[..., 0] + 2))
    truth = (across - torch.tensor(2.0).log() + normal.log_prob(x[..., 1])).mean()
    with torch.no_grad():
        found = model.log_prob(x).mean()
    assert gaussian + 0.5 * (truth - gaussian) < found < truth + 0.05


def test_a_solver_takes_it():
    model, y = flow("planar"), points(3)
    x = CSGM(60, restarts=2, optimiser="lbfgs")(y, Denoising(), model, 0.001, Noise(0, [0, 1, 2]))
    torch.testing.assert_close(x, y, rtol=0, atol=1e-4)


def test_errors():
    with pytest.raises(ValueError, match="must be at least 1, got 2, 0"):
        PlanarFlow(2, 0)
    with pytest.raises(ValueError, match="'planar' or 'radial', got 'linear'"):
        PlanarFlow(2, 1, "linear")
    with pytest.raises(ValueError, match="of 2 numbers, got 3"):
        PlanarFlow(2).latent_shape(torch.Size((1, 3, 1, 1)))
