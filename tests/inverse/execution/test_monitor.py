"""Monitored priors keep their abilities, and evaluations are counted."""

import pytest
import torch
from contracts import dense, measure
from oracles import Dense
from small import Shrink, batch

from genprior import make_operator, make_solver, restore
from genprior.evaluation.gaussian_theory.calibration import z_scores
from genprior.evaluation.gaussian_theory.exact_laws import Problem
from genprior.inverse.diffusion.moment_matched import MomentMatched
from genprior.inverse.execution.monitor import all_finite
from genprior.inverse.optimization.csgm import CSGM
from genprior.inverse.optimization.glowip import GlowIP
from genprior.inverse.optimization.iagan import IAGAN
from genprior.inverse.optimization.jpmap import PnPHVAE
from genprior.inverse.optimization.map import MAP
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.gan import GAN
from genprior.priors.glow import Glow
from genprior.priors.pca import PCA
from genprior.priors.texture import Texture
from genprior.priors.vae import VAE


def test_a_gaussian_prior_is_drawn_from_in_closed_form_by_restore() -> None:
    shape, samples, noise_std = (1, 3, 5), 50, 0.05
    S = Dense().cov(shape)
    values, vectors = torch.linalg.eigh(S)
    mean = torch.full(shape, 0.5).double()
    prior = PCA(mean, vectors.mT.reshape(-1, *shape), values, 0.0).float()
    op = Inpainting(random_keep((1, *shape), 0.5))
    y = measure(op, Dense().draw(1, shape), torch.tensor(noise_std))
    # one product would be far too few for draws by Lanczos
    solver = MomentMatched(
        3, 15, root_products=1, full_above=0, extra_noise=0, max_inflation=1, max_rescaling=1
    )
    result = restore(y.float(), op, prior, solver, noise_std, samples=samples)
    A = dense(op, y)
    exact = Problem(S, A[A.abs().sum(dim=1) > 0], noise_std)
    seen = op.mask.flatten() > 0.5
    expected = 0.5 + exact.gain @ (y.flatten()[seen] - 0.5)
    z = z_scores(result.samples[0].flatten(1).double(), expected, exact.posterior_cov)
    assert abs(z.square().mean().item() - 1) < 5 * (2 / z.numel()) ** 0.5
    assert z.mean(dim=0).square().mean().item() < 2 / samples


@pytest.mark.parametrize("tile", ["off", 64])
def test_a_gaussian_prior_in_tiles(tile: int | str) -> None:
    image = Dense().draw(1, (1, 9, 8)).float()[0].repeat_interleave(8, 1).repeat_interleave(2, 2)
    prior = Texture.from_exemplar(image[None], margin=None).float()
    keep = torch.ones(1, 1, 72, 16)
    keep[..., 40:50, 4:10] = 0
    solver = MomentMatched(2, 3, full_above=0, extra_noise=0, max_inflation=1, max_rescaling=1)
    y = keep[0] * image
    result = restore(y, Inpainting(keep), prior, solver, 0.05, samples=2, tile=tile)
    assert result.tile == (None if tile == "off" else tile)
    assert (result.image - image)[keep[0] > 0].abs().mean() < 0.1


def searches():
    """Optimisation solvers with a small prior for each."""
    torch.manual_seed(0)
    vae, gan = VAE(1, 2, (4, 6)), GAN(1, 2, (4,)).eval()
    flow = Glow(1, levels=1, depth=1, width=4)
    yield "map", MAP(5), flow
    yield "glowip", GlowIP(5), flow
    yield "pnp-hvae", PnPHVAE(5), vae
    yield "csgm", CSGM(4, restarts=3), gan
    yield "iagan", IAGAN(4, restarts=2, refinements=3), gan


SEARCHES = [pytest.param(*rest, id=name) for name, *rest in searches()]


@pytest.mark.parametrize("solver, prior", SEARCHES)
def test_the_progress_of_a_search_ends_where_it_should(solver, prior) -> None:
    y, seen = torch.rand(2, 1, 6, 8), []
    op = Inpainting(random_keep((1, 1, 6, 8), 0.5))
    restore(op.A(y), op, prior, solver, 0.05, progress=lambda *counts: seen.append(counts))
    done, total = zip(*seen, strict=True)
    assert set(total) == {2 * solver.nfe} and list(done) == sorted(done)
    assert done[-1] == 2 * solver.nfe


def test_the_error_reports_the_evaluation_with_nan(monkeypatch) -> None:
    prior, calls, log_prob = Glow(1, levels=1, depth=1, width=4), [], Glow.log_prob

    def broken(self, x):
        calls.append(x)
        return log_prob(self, x) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(Glow, "log_prob", broken)
    y, op = torch.rand(1, 1, 6, 8), Inpainting(random_keep((1, 1, 6, 8), 0.5))
    with pytest.raises(FloatingPointError, match="gave NaN .* in evaluation 3 of 5: use another"):
        restore(op.A(y), op, prior, MAP(5), 0.05)


def test_a_search_runs_its_network_in_the_precision_that_is_asked_for() -> None:
    y, op = torch.rand(1, 1, 6, 8), Inpainting(random_keep((1, 1, 6, 8), 0.5))
    prior = SEARCHES[2].values[1]
    x, low = (
        restore(op.A(y), op, prior, PnPHVAE(5), 0.05, dtype=dtype).image
        for dtype in ("float32", "bfloat16")
    )
    assert low.dtype == torch.float32 and 0 < (x - low).abs().max() < 0.02


def test_progress_counts_the_particles_of_every_image() -> None:
    seen, operator = [], make_operator("denoise")
    solver = make_solver("smc", steps=4, particles=5)
    restore(batch(), operator, Shrink(), solver, 0.1, progress=lambda *counts: seen.append(counts))
    done, total = seen[-1]
    assert done == total > 2 * 4 * 5


@pytest.mark.parametrize("value, finite", [(1.0, True), (3e38, True), (float("nan"), False),
                                           (float("inf"), False), (-float("inf"), False)])
def test_numbers_that_are_not_finite_are_found(value: float, finite: bool) -> None:
    """Also where the sum of finite numbers overflows."""
    x = torch.zeros(2, 3, 4, 4)
    x[1, 2, 3, 0] = x[0, 0, 0, 0] = value
    assert bool(all_finite(x)) is finite
    x[0, 1, 1, 1] = -value
    assert bool(all_finite(x)) is finite
