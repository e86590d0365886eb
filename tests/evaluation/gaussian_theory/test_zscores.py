"""Samples of the solvers against the exact law of each method, by z-scores.

`test_exact_laws` checks the laws against published numbers. Here the solvers are called as users
call them, with random numbers. z-scores are taken by frequency for GRF-64, and by the eigenvectors
of the covariance for GRF-12 with its four operators.
"""

import math
from collections.abc import Iterator

import affine_samplers
import pytest
import torch
from golden import VAR, Convolution, dps_law, grf12, mean_norm, spectrum
from torch import Tensor
from torch.fft import fft2

from genprior.core.random_streams import Noise
from genprior.core.schedules import sigma_steps
from genprior.evaluation.gaussian_theory.calibration import z_scores
from genprior.evaluation.gaussian_theory.exact_laws import Law, Problem, Step, propagate, white
from genprior.inverse.diffusion.daps import DAPS
from genprior.inverse.diffusion.ddrm import DDRM
from genprior.inverse.diffusion.diffpir import DiffPIR
from genprior.inverse.diffusion.dps import DPS
from genprior.inverse.diffusion.jfps import JFPS
from genprior.inverse.diffusion.mmps import MMPS
from genprior.inverse.diffusion.moment_matched import MomentMatched
from genprior.inverse.diffusion.pigdm import PiGDM
from genprior.inverse.diffusion.pnp_dm import PnPDM
from genprior.inverse.diffusion.smc import SMC
from genprior.inverse.diffusion.tmpd import TMPD
from genprior.operators.base import Operator
from genprior.priors.texture import Texture

STEPS = 8
DDPM = {"spacing": "ddpm"}
FAR = {"sigma_max": 1e3, "sigma_min": 0.01}
EXACT_MOMENTS = {"full_above": 0, "extra_noise": 0, "max_inflation": 1, "max_rescaling": 1}
SIGMA = 0.025


ITERATIVE = ("mmps", "mmps ddim", "moment-matched", "daps")
EXACT = ("moment-matched", "daps", "smc")
# method: (rule, solver); the rule is None for methods without one rule for all noise levels
METHODS = {
    "diffpir": (
        affine_samplers.diffpir(1.0, 0.3),
        DiffPIR(STEPS, coupling=1.0, stochasticity=0.3, **DDPM),
    ),
    "pigdm": (affine_samplers.pigdm(1.0, VAR / 4), PiGDM(STEPS, prior_var=VAR / 4, **DDPM)),
    "pigdm published": (
        affine_samplers.pigdm(1.0, VAR / 4, published=True),
        PiGDM(STEPS, variant="published", prior_var=VAR / 4, **DDPM),
    ),
    "ddrm": (affine_samplers.ddrm(0.85), DDRM(STEPS, 0.85, spacing="ddpm")),
    "tmpd": (affine_samplers.tmpd(1.0), TMPD(STEPS, **DDPM)),
    "jfps": (
        affine_samplers.jfps(1.0, VAR / 4),
        JFPS(STEPS, 1.0, "isotropic", VAR / 4, 30, **DDPM),
    ),
    "dps": (None, DPS(STEPS, strength=10.0)),
    "pnp-dm": (None, PnPDM(4, 3, rho_max=0.5, rho_min=0.1, sigma_min=0.02)),
    "mmps": (affine_samplers.mmps(1.0), MMPS(STEPS, 1.0, iterations=25, **DDPM)),
    "mmps ddim": (affine_samplers.mmps(0.0), MMPS(STEPS, 0.0, iterations=25, **DDPM)),
    "moment-matched": (None, MomentMatched(3, 30, **EXACT_MOMENTS, **FAR)),
    "daps": (None, DAPS(3, "exact", iterations=30, **FAR)),
    "smc": (None, SMC(2, particles=2, iterations=16, root_products=8, **FAR)),
}


def law(method: str, problem: Problem) -> Law:
    """Returns the law of a method given y."""
    rule, solver = METHODS[method]
    if method in EXACT:
        return Law(problem.gain, problem.posterior_cov)
    if method == "dps":
        return dps_law(solver, problem)
    if method == "pnp-dm":
        return propagate(white(problem, 0), sweeps(solver, problem))
    start = white(problem, VAR + solver.sigmas[0] ** 2)
    if method != "ddrm":
        return propagate(start, affine_samplers.steps(rule, problem, solver.sigmas))
    U, _, Vh = torch.linalg.svd(problem.A, full_matrices=True)
    turned = affine_samplers.singular_coordinates(problem)
    start = affine_samplers.ddrm_start(turned, solver.sigmas[0])
    found = propagate(start, affine_samplers.steps(rule, turned, solver.sigmas))
    return Law(Vh.mH @ found.G @ U.mH, Vh.mH @ found.V @ Vh)


def sweeps(solver: PnPDM, problem: Problem) -> Iterator[Step]:
    """Yields the steps of split Gibbs sampling: a likelihood step, then ancestral steps to 0."""
    for rho in solver.couplings:
        yield affine_samplers.draw_near(problem, rho)
        levels = sigma_steps(solver.inner, rho, solver.sigma_min)
        yield from affine_samplers.steps(affine_samplers.unguided, problem, levels)


@pytest.fixture(autouse=True)
def norm_over_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the norm of residuals in DPS by the RMS over all samples, as its law does."""
    monkeypatch.setattr(torch.linalg, "vector_norm", mean_norm)


def draw(
    method: str, prior: Texture, op: Operator, shape: tuple, fields: int, chains: int
) -> tuple[Tensor, Tensor]:
    """Returns measurements of prior samples, (fields, ...), and samples, (fields, chains, ...)."""
    first = Noise(5, range(fields))
    z = first.normal(torch.zeros(prior.latent_shape(torch.Size((fields, *shape)))).double())
    y = op.A(prior.decode(z, torch.Size((fields, *shape))))
    y = y + SIGMA * op.mask_unmeasured(first.normal(y))
    noise = Noise(0, [(i, k) for i in range(fields) for k in range(chains)])
    x = METHODS[method][1](y.repeat_interleave(chains, 0), op, prior, SIGMA, noise)
    return y, x.unflatten(0, (fields, chains))


def check(z: Tensor) -> None:
    """Checks that z, shape (fields, chains, coordinates), is independent with mean square 1."""
    means = math.sqrt(z.shape[1]) * z.mean(dim=1)
    for scores in (z, means):
        tolerance = 5 * math.sqrt(2 / scores.numel())
        assert scores.abs().square().mean().item() == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(0, id="deblur", marks=pytest.mark.slow),
        pytest.param(1, id="box"),
        pytest.param(2, id="random", marks=pytest.mark.slow),
        pytest.param(3, id="superres"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_small_field(method: str, index: int) -> None:
    if method == "smc" and index != 3:
        pytest.skip("its likelihood is exact for up to 16 measured numbers")
    prior, operators, problems = grf12()
    op = operators[index]
    fields, chains = (4, 32) if method in (*ITERATIVE, "smc") else (8, 64)
    y, x = draw(method, prior, op, (1, 12, 12), fields, chains)
    given = law(method, problems[index])
    observed = op.mask_unmeasured(torch.ones_like(y[:1])).flatten() > 0
    # the prior has mean 1/2, `Problem` has mean 0
    residual = (y - op.A(torch.full_like(x[:1, 0], 0.5))).flatten(1)[:, observed]
    mean = 0.5 + residual @ given.G[0].mT
    z = [z_scores(x[i].flatten(1), mean[i], given.V[0]) for i in range(fields)]
    check(torch.stack(z))


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in (*ITERATIVE, "jfps") else [])
        for name in METHODS
        if name not in ("tmpd", "smc")
    ],
)
def test_a_large_field_by_frequency(method: str) -> None:
    k2, S = spectrum(64, 4)
    h = torch.exp(-2 * math.pi**2 * 2**2 * k2)
    problem = Problem(S.reshape(-1, 1, 1), h.reshape(-1, 1, 1), SIGMA)
    fields, chains = (16, 16) if method in ITERATIVE else (4, 16)
    prior = Texture.from_spectrum(S)
    y, x = draw(method, prior, Convolution(h), (1, 64, 64), fields, chains)
    given = law(method, problem)
    G, V = given.G.flatten(), given.V.real.flatten()
    expected = G * fft2(y - 0.5, norm="ortho").flatten(1)
    z = fft2(x - 0.5, norm="ortho").flatten(2) - expected[:, None]
    check(z / V.sqrt())
