import math

import pytest
import torch
from contracts import check_solver, measure, measurements
from linear import linear, posterior_means, relative_error
from oracles import Dense, normals
from torch import Tensor

from genprior import restore
from genprior.core.errors import SettingError
from genprior.core.random_streams import Noise
from genprior.inverse.execution.tiled_decoder import TiledDensity
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.inverse.optimization.glowip import GlowIP
from genprior.inverse.optimization.map import MAP
from genprior.operators.base import Operator
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.base import Density
from genprior.priors.glow import Glow
from genprior.priors.texture import Texture

NOISE = Noise(0, [0, 1, 2])
SIGMA = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
PROBLEMS = [pytest.param(*rest, id=name) for name, *rest in measurements(3)]


@pytest.mark.parametrize("solver", [GlowIP(5), GlowIP(5, power=1), MAP(5)], ids=str)
def test_laws(solver) -> None:
    check_solver(solver, ("inpainting", "superres"), seeded=False)


@pytest.mark.parametrize(
    "solver", [GlowIP(120), MAP(120, optimiser="lbfgs")], ids=["glowip", "map"]
)
@pytest.mark.parametrize("op, shape", PROBLEMS)
def test_the_mode_of_a_gaussian_posterior_is_its_mean(op: Operator, shape, solver) -> None:
    prior, S = linear(shape, floor=0.05)
    y = measure(op, Dense().draw(3, shape), SIGMA)
    exact = posterior_means(op, S, y, SIGMA, 0.4)
    assert relative_error(solver(y, op, prior, SIGMA, NOISE), exact, 0.4) < 1e-4


@pytest.mark.parametrize(
    "solver, margin", [(GlowIP(150), 3), (MAP(300, optimiser="lbfgs"), 0)], ids=["glowip", "map"]
)
def test_a_texture_is_restored_as_by_the_exact_posterior(solver, margin: int) -> None:
    exemplar = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0)).double()
    prior = Texture.from_exemplar(exemplar, margin=margin, floor=0.1)
    op = Inpainting(random_keep((3, 1, 8, 9), 0.4))
    y = measure(op, 0.5 + 0.2 * normals(1, 3, 3, 8, 9)[0], SIGMA)
    exact = GaussianPosterior("mean", tolerance=1e-12)(y, op, prior, SIGMA, NOISE)
    assert relative_error(solver(y, op, prior, SIGMA, NOISE), exact, 0.5) < 1e-4


@pytest.mark.parametrize("sigma", [SIGMA, 0 * SIGMA], ids=["noisy", "exact"])
def test_adam_finds_the_mode_too_and_fits_exact_data_exactly(sigma) -> None:
    prior, S = linear((3, 5, 6), floor=0.1)
    op = Inpainting(random_keep((3, 1, 5, 6), 0.5))
    y = measure(op, Dense().draw(3, (3, 5, 6)), sigma)
    exact = posterior_means(op, S, y, sigma.clamp(min=1e-6), 0.4)
    x = MAP(1000)(y, op, prior, sigma, NOISE)
    assert relative_error(x, exact, 0.4) < 1e-3
    if not sigma.any():
        assert torch.equal(op.A(x), y)


def test_noisy_data_are_not_fitted_exactly_on_the_way(monkeypatch) -> None:
    prior, _ = linear((3, 4, 4), floor=0.05)
    monkeypatch.setattr(Denoising, "prox", None)
    x = MAP(5)(torch.full((3, 3, 4, 4), 0.3).double(), Denoising(), prior, SIGMA, NOISE)
    assert x.isfinite().all()


def test_the_mode_of_a_flow_has_no_gradient() -> None:
    torch.manual_seed(0)
    prior = Glow(1, levels=1, depth=2, width=6).double()
    for p in prior.parameters():
        p.data += 0.1 * torch.randn(p.shape, dtype=p.dtype)
    prior.requires_grad_(False)
    op = Inpainting(random_keep((2, 1, 4, 4), 0.5))
    y = op.A(torch.rand(2, 1, 4, 4, dtype=torch.float64))
    x = MAP(120, optimiser="lbfgs")(y, op, prior, 0.1, Noise(0, [0, 1])).requires_grad_()
    energy = (op.A(x) - y).square().sum() / 0.02 - prior.log_prob(x).sum()
    assert torch.autograd.grad(energy, x)[0].abs().max() < 1e-4
    z = torch.zeros(2, 16, dtype=torch.float64).requires_grad_()
    shape = torch.Size((2, 1, 4, 4))
    start = ((op.A(prior.decode(z, shape)) - y).square().sum() / 0.01 + z.square().sum()).item()
    z = prior.encode(GlowIP(120)(y, op, prior, 0.1, Noise(0, [0, 1]))).requires_grad_()
    energy = (op.A(prior.decode(z, shape)) - y).square().sum() / 0.01 + z.square().sum()
    assert torch.autograd.grad(energy, z)[0].abs().max() < 1e-4 and energy.item() < start


@pytest.mark.parametrize("solver", [GlowIP, MAP])
def test_settings_out_of_range_are_refused(solver) -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        solver(steps=0)
    with pytest.raises(ValueError, match="'adam' or 'lbfgs', got 'sgd'"):
        solver(optimiser="sgd")
    with pytest.raises(ValueError, match="step_size must be > 0 and finite, got inf"):
        solver(step_size=math.inf)


@pytest.mark.parametrize("side", [None, 12])
def test_a_flow_trained_with_noise_has_settings_of_its_own(side) -> None:
    torch.manual_seed(0)
    flows = [Glow(1, levels=1, depth=2, width=6, noise=noise).double() for noise in (0, 0.1)]
    flows[1].load_state_dict(flows[0].state_dict())
    plain, noisy = (flow.requires_grad_(False) for flow in flows)
    if side:
        plain, noisy = (TiledDensity(flow, side) for flow in (plain, noisy))
    y = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    sigma = torch.tensor([0.0, 0.1]).double()
    op = Inpainting(random_keep((2, 1, 16, 16), 0.5))

    def found(prior: Density, **settings: float) -> Tensor:
        return MAP(4, **settings)(op.A(y), op, prior, sigma, NOISE)

    settings = {"weight": noisy.map_weight, "step_size": noisy.map_step_size}
    assert torch.equal(found(noisy), found(plain, **settings))
    assert torch.equal(found(plain), found(noisy, weight=1, step_size=0.01))
    assert (found(noisy) - found(plain)).abs().max() > 0.01


def test_a_weight_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="weight must be > 0 and finite, got 0"):
        MAP(weight=0)


def test_a_flow_is_restored_with_by_default() -> None:
    torch.manual_seed(0)
    prior = Glow(3, levels=1, depth=1, width=4).requires_grad_(False)
    y = torch.rand(2, 3, 5, 6)
    op = Inpainting(random_keep((2, 1, 5, 6), 0.5))
    result = restore(op.A(y), op, prior, noise_std=[0.0, 0.1], steps=5)
    assert result.solver == "map" and result.nfe == 5
    alone = restore(op.A(y)[1:], op.select([1]), prior, noise_std=0.1, steps=5, index=1)
    assert torch.equal(alone.image[0], result.image[1])
    assert restore(op.A(y), op, prior, noise_std=0.1, steps=4, samples=2).solver == "langevin"

    class Law(Density):
        def log_prob(self, x: Tensor) -> Tensor:
            return prior.log_prob(x)

    assert restore(op.A(y), op, Law(), noise_std=0.1, steps=3).solver == "map"
    assert restore(op.A(y), op, Law(), None, 0.1, 2, steps=3).solver == "image-langevin"
    with pytest.raises(SettingError, match="no solver takes a object"):
        restore(op.A(y), op, object(), noise_std=0.1)
