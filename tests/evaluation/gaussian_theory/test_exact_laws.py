"""Exact laws against published numbers, Monte Carlo and the code of the solvers.

The published numbers are for images of unit variance; in image units they are half as large.
"""

import math

import affine_samplers
import pytest
import torch
from golden import VAR, dps_law, grf12, spectrum
from rows import GRF12, GRF64

from genprior.core.schedules import sigma_steps
from genprior.evaluation.gaussian_theory.exact_laws import (
    Law,
    Problem,
    Step,
    distance,
    law_of,
    propagate,
    trace,
    white,
)
from genprior.inverse.diffusion.diffpir import DiffPIR
from genprior.inverse.diffusion.dps import DPS
from genprior.inverse.diffusion.pigdm import PiGDM
from genprior.inverse.gaussian.posterior import GaussianPosterior

RULES = {
    "MMPS DDPM": affine_samplers.mmps(1.0),
    "MMPS DDIM": affine_samplers.mmps(0.0),
    "PiGDM": affine_samplers.pigdm(1.0, VAR),
    "PiGDM code": affine_samplers.pigdm(1.0, VAR, published=True),
    "PiGDM code DDIM": affine_samplers.pigdm(0.0, VAR, published=True),
    "DiffPIR .1": affine_samplers.diffpir(1.0, 0.1),
    "DiffPIR .3": affine_samplers.diffpir(1.0, 0.3),
    "DiffPIR 1": affine_samplers.diffpir(1.0, 1.0),
    "DiffPIR .3 lambda 8": affine_samplers.diffpir(8.0, 0.3),
    "JFPS isotropic": affine_samplers.jfps(1.0, VAR / 4),
    "TMPD": affine_samplers.tmpd(1.0),
    "DDRM .85": affine_samplers.ddrm(0.85),
    "DDRM 1": affine_samplers.ddrm(1.0),
}


def grf64(noise=0.05):
    k2, S = spectrum(64, 4)
    h = torch.exp(-2 * math.pi**2 * 2**2 * k2)
    return Problem(S.reshape(-1, 1, 1), h.reshape(-1, 1, 1), noise / 2)


def law(method, problem, steps):
    if method.startswith("DPS"):
        return distance(dps_law(DPS(steps, float(method[4:])), problem), problem)
    sigmas = sigma_steps(steps, 1.0, 1.0, "ddpm")
    start = white(problem, VAR + sigmas[0] ** 2)
    if method.startswith("DDRM"):
        problem = affine_samplers.singular_coordinates(problem)
        start = affine_samplers.ddrm_start(problem, sigmas[0])
    run = propagate(start, affine_samplers.steps(RULES[method], problem, sigmas))
    return distance(run, problem)


def check_row(got, row):
    w2, mean, ratio = row
    assert 2 * got.w2 == pytest.approx(w2, rel=0.01, abs=1e-5)
    assert 2 * got.mean == pytest.approx(mean, rel=0.01, abs=1e-5)
    assert got.ratio == pytest.approx(ratio, rel=0.01)


def rows(table):
    """Returns the rows of a table as parameters; those of more than 100 steps are slow."""
    return [pytest.param(*k, marks=[pytest.mark.slow] if k[1] > 100 else []) for k in table]


@pytest.mark.parametrize(("method", "steps", "noise"), rows(GRF64))
def test_published_numbers_of_deblurring(method, steps, noise):
    check_row(law(method, grf64(noise), steps), GRF64[method, steps, noise])


@pytest.mark.parametrize(("method", "steps"), rows(GRF12))
def test_published_numbers_of_four_operators(method, steps):
    for problem, w2 in zip(grf12()[2], GRF12[method, steps], strict=True):
        assert 2 * law(method, problem, steps).w2 == pytest.approx(w2, rel=0.01)


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("index", range(4))
def test_moment_matching_is_exact_in_any_number_of_steps(steps, index):
    problem = grf12()[2][index]
    sigmas = sigma_steps(steps, 60.0, 0.01) if steps > 1 else [1e4]
    start = white(problem, VAR + sigmas[0] ** 2)
    run = propagate(start, affine_samplers.steps(affine_samplers.moment_matched, problem, sigmas))
    assert distance(run, problem).w2 < 2e-5


def test_distances_of_trivial_samplers():
    problem = grf64()
    d = problem.S.numel()
    posterior_sd = math.sqrt(trace(problem.posterior_cov) / d)
    assert 2 * posterior_sd == pytest.approx(0.1187122365, rel=1e-9)
    check_row(distance(Law(0 * problem.gain, problem.S), problem), (0.6742, 0.4857, 17.740))
    mean = distance(Law(problem.gain, 0 * problem.S), problem)
    assert mean.w2 == pytest.approx(posterior_sd)
    assert distance(Law(problem.gain, problem.posterior_cov), problem).w2 < 1e-8


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize(
    ("solver", "method"),
    [
        (DiffPIR(20, coupling=1.0, stochasticity=1.0, spacing="ddpm"), "DiffPIR 1"),
        (PiGDM(20, prior_var=VAR, spacing="ddpm"), "PiGDM"),
        (PiGDM(20, variant="published", prior_var=VAR, spacing="ddpm"), "PiGDM code"),
    ],
    ids=["diffpir", "pigdm", "pigdm published"],
)
def test_the_code_of_a_solver_has_its_law(solver, method, index):
    prior, operators, problems = grf12()
    op = operators[index]
    y = op.A(torch.zeros(1, 1, 12, 12, dtype=torch.float64))
    got, _ = law_of(solver, op, prior, 0.025, y)
    known = op.mask_unmeasured(torch.ones_like(y)).flatten() > 0
    w2 = distance(Law(got.G[None, :, known], got.V[None]), problems[index]).w2
    expected = law(method, problems[index], 20)
    assert w2 == pytest.approx(expected.w2, rel=1e-6)
    assert 2 * w2 == pytest.approx(GRF12[method, 20][index], rel=0.01)


def test_the_code_of_the_exact_posterior_has_distance_zero():
    prior, operators, problems = grf12()
    for op, problem in zip(operators, problems, strict=True):
        y = op.A(torch.zeros(1, 1, 12, 12, dtype=torch.float64))
        got, _ = law_of(GaussianPosterior(tolerance=1e-12), op, prior, 0.025, y)
        known = op.mask_unmeasured(torch.ones_like(y)).flatten() > 0
        assert distance(Law(got.G[None, :, known], got.V[None]), problem).w2 < 1e-7


def variances(scheme, S, times, exact_start=False):
    """Returns the variance of each mode after Pierret and Galerne's schemes, from `propagate`."""
    return propagate(
        Law(torch.zeros(len(S), 1, 1, dtype=S.dtype), torch.ones(len(S), 1, 1, dtype=S.dtype)),
        (scheme(S, t, s) for t, s in zip(times, times[1:], strict=False)),
    ).V.flatten()


def level(t):
    """Returns B(t), the integral of beta(t) = 0.05 + 9.95 t."""
    return 0.05 * t + 9.95 * t**2 / 2


def noised(S, t):
    return math.exp(-2 * level(t)) * S + 1 - math.exp(-2 * level(t))


def diagonal(m, q):
    return Step(m.reshape(-1, 1, 1), torch.zeros_like(m).reshape(-1, 1, 1), q.reshape(-1, 1, 1))


def euler_maruyama(S, t, s):
    d = (t - s) * (0.05 + 9.95 * t)
    return diagonal(1 + d * (1 - 2 / noised(S, t)), torch.full_like(S, 2 * d))


def exponential(S, t, s):
    g = level(t) - level(s)
    drift = 1 + (math.exp(g) - 1) * (1 - 2 / noised(S, t))
    return diagonal(drift, torch.full_like(S, math.exp(2 * g) - 1))


def euler(S, t, s):
    return diagonal(1 + (t - s) * (0.05 + 9.95 * t) * (1 - 1 / noised(S, t)), 0 * S)


def heun(S, t, s):
    a = (t - s) * (0.05 + 9.95 * t) * (1 - 1 / noised(S, t))
    b = (t - s) * (0.05 + 9.95 * s) * (1 - 1 / noised(S, s))
    return diagonal(1 + a / 2 + b / 2 * (1 + a), 0 * S)


@pytest.mark.parametrize("scheme", [euler_maruyama, exponential, euler, heun])
def test_unconditional_recursions_against_monte_carlo(scheme):
    S = spectrum(16, 2)[1].flatten()[:40] * 16
    times = [1 - (1 - 1e-3) * n / 59 for n in range(60)]
    expected = variances(scheme, S, times)
    generator = torch.Generator().manual_seed(0)
    count = 4000

    def normal():
        return torch.randn(count, len(S), generator=generator, dtype=torch.float64)

    def drift(x, t):
        # drift of the reverse ODE: beta (x + score)
        return (0.05 + 9.95 * t) * (x - x / noised(S, t))

    x = normal()
    for t, s in zip(times, times[1:], strict=False):
        d, beta, g = t - s, 0.05 + 9.95 * t, level(t) - level(s)
        if scheme is euler:
            x = x + d * drift(x, t)
        elif scheme is heun:
            ahead = x + d * drift(x, t)
            x = x + d / 2 * (drift(x, t) + drift(ahead, s))
        elif scheme is euler_maruyama:
            x = x + d * beta * (x - 2 * x / noised(S, t)) + math.sqrt(2 * d * beta) * normal()
        else:
            x = x + (math.exp(g) - 1) * (x - 2 * x / noised(S, t))
            x = x + math.sqrt(math.exp(2 * g) - 1) * normal()
    ratio = x.var(dim=0) / expected
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / count)


def test_more_steps_bring_the_recursions_to_the_law():
    S = spectrum(16, 2)[1].flatten() * 16
    for scheme in (euler_maruyama, exponential, euler, heun):
        errors = []
        for n in (50, 500):
            times = [1 - (1 - 1e-4) * i / (n - 1) for i in range(n)]
            error = variances(scheme, S, times).sqrt() - S.sqrt()
            errors.append(error.norm().item())
        assert errors[1] < errors[0] / 3
