"""The law engine against published numbers, Monte Carlo and the code of the solvers.

The reference problems have N(0, I) images in mind; in image units they are half as large.
"""

import math

import pytest
import torch
from golden import VAR, grf12, spectrum

from genprior.diffusion import sigma_steps
from genprior.inverse import affine
from genprior.inverse.diffpir import DiffPIR
from genprior.inverse.dps import DPS
from genprior.inverse.gaussian import GaussianPosterior
from genprior.inverse.laws import Law, Problem, Step, distance, law_of, propagate, trace, white
from genprior.inverse.pigdm import PiGDM
from genprior.noise import Noise

RULES = {
    "MMPS DDPM": affine.mmps(1.0),
    "MMPS DDIM": affine.mmps(0.0),
    "PiGDM": affine.pigdm(1.0, VAR),
    "PiGDM code": affine.pigdm(1.0, VAR, published=True),
    "PiGDM code DDIM": affine.pigdm(0.0, VAR, published=True),
    "DiffPIR .1": affine.diffpir(1.0, 0.1),
    "DiffPIR .3": affine.diffpir(1.0, 0.3),
    "DiffPIR 1": affine.diffpir(1.0, 1.0),
    "DiffPIR .3 lambda 8": affine.diffpir(8.0, 0.3),
    "JFPS isotropic": affine.jfps(1.0, VAR / 4),
    "TMPD": affine.tmpd(1.0),
    "DDRM .85": affine.ddrm(0.85),
    "DDRM 1": affine.ddrm(1.0),
}
# (method, steps): (W2, mean error, variance ratio) at sigma .05, 64 x 64, rho 4, blur of std 2
GRF64 = {
    ("MMPS DDPM", 10): (0.0703, 0.0000, 0.187),
    ("MMPS DDPM", 20): (0.0503, 0.0000, 0.366),
    ("MMPS DDPM", 100): (0.0195, 0.0000, 0.727),
    ("MMPS DDIM", 20): (0.0406, 0.0001, 0.473),
    ("MMPS DDIM", 100): (0.0111, 0.0002, 0.849),
    ("PiGDM", 100): (0.0213, 0.0100, 0.745),
    ("PiGDM code", 20): (0.0506, 0.0074, 0.372),
    ("PiGDM code", 100): (0.0650, 0.0546, 0.562),
    ("PiGDM code DDIM", 100): (0.1110, 0.0952, 0.538),
    ("DiffPIR .1", 20): (0.0908, 0.0785, 0.400),
    ("DiffPIR .1", 100): (0.0501, 0.0476, 0.764),
    ("DiffPIR .3", 100): (0.0315, 0.0260, 0.732),
    ("DiffPIR 1", 100): (0.0444, 0.0087, 0.403),
    ("DiffPIR .3 lambda 8", 100): (0.0578, 0.0414, 1.180),
    ("DDRM .85", 20): (0.0730, 0.0317, 0.288),
    ("DDRM .85", 100): (0.0895, 0.0694, 0.277),
    ("DDRM 1", 100): (0.0652, 0.0529, 0.610),
    ("JFPS isotropic", 100): (0.0226, 0.0107, 0.717),
}
GRF64_1000 = {
    "MMPS DDPM": (0.0037, 0.0000, 0.950),
    "PiGDM": (0.0102, 0.0094, 0.967),
    "PiGDM code": (0.2083, 0.2020, 0.554),
    "DiffPIR .1": (0.0137, 0.0128, 0.925),
    "DiffPIR 1": (0.0369, 0.0018, 0.476),
    "DDRM .85": (0.1621, 0.1498, 0.246),
    "JFPS isotropic": (0.0110, 0.0102, 0.939),
}
# W2 at sigma .05, 12 x 12, rho 2: deblurring, box, random, averages of 3 x 3
GRF12 = {
    ("MMPS DDPM", 20): (0.05679, 0.04561, 0.05500, 0.06704),
    ("MMPS DDIM", 100): (0.01172, 0.01079, 0.01142, 0.01211),
    ("PiGDM", 20): (0.05825, 0.09391, 0.13042, 0.06774),
    ("PiGDM", 100): (0.02546, 0.07125, 0.08818, 0.02631),
    ("PiGDM code", 20): (0.05690, 0.09575, 0.12794, 0.06788),
    ("PiGDM code", 100): (0.06136, 0.04036, 0.02990, 0.04037),
    ("DiffPIR 1", 20): (0.08089, 0.09941, 0.13701, 0.08776),
    ("DiffPIR .1", 100): (0.06564, 0.11507, 0.17792, 0.03894),
    ("DiffPIR .3", 100): (0.04374, 0.09057, 0.12344, 0.02811),
    ("TMPD", 20): (0.15368, 0.10075, 0.06359, 0.07382),
    ("TMPD", 100): (0.11416, 0.07853, 0.03351, 0.03524),
    ("DDRM .85", 20): (0.07467, 0.12433, 0.19005, 0.06874),
    ("DDRM 1", 100): (0.06588, 0.06845, 0.05988, 0.07235),
}


def grf64(sigma=0.05):
    k2, S = spectrum(64, 4)
    h = torch.exp(-2 * math.pi**2 * 2**2 * k2)
    return Problem(S.reshape(-1, 1, 1), h.reshape(-1, 1, 1), sigma / 2)


def law(method, problem, steps):
    sigmas = sigma_steps(steps, 1.0, 1.0, "ddpm")
    start = white(problem, VAR + sigmas[0] ** 2)
    if method.startswith("DDRM"):
        problem = affine.singular_coordinates(problem)
        start = affine.ddrm_start(problem, sigmas[0])
    run = propagate(start, affine.steps(RULES[method], problem, sigmas))
    return distance(run, problem)


def check_row(got, row):
    w2, mean, ratio = row
    assert 2 * got.w2 == pytest.approx(w2, rel=0.01, abs=5e-5)
    assert 2 * got.mean == pytest.approx(mean, rel=0.01, abs=1e-4)
    assert got.ratio == pytest.approx(ratio, rel=0.01, abs=5e-4)


@pytest.mark.parametrize(("method", "steps"), list(GRF64))
def test_published_numbers_of_deblurring(method, steps):
    check_row(law(method, grf64(), steps), GRF64[method, steps])


@pytest.mark.slow
@pytest.mark.parametrize("method", list(GRF64_1000))
def test_published_numbers_of_deblurring_in_1000_steps(method):
    check_row(law(method, grf64(), 1000), GRF64_1000[method])


@pytest.mark.parametrize(("method", "steps"), list(GRF12))
def test_published_numbers_of_four_operators(method, steps):
    for problem, w2 in zip(grf12()[2], GRF12[method, steps], strict=True):
        assert 2 * law(method, problem, steps).w2 == pytest.approx(w2, rel=0.01)


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("index", range(4))
def test_moment_matching_is_exact_in_any_number_of_steps(steps, index):
    problem = grf12()[2][index]
    sigmas = sigma_steps(steps, 60.0, 0.01) if steps > 1 else [1e4]
    start = white(problem, VAR + sigmas[0] ** 2)
    run = propagate(start, affine.steps(affine.moment_matched, problem, sigmas))
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
        (DiffPIR(20, coupling=1.0, renewal=1.0, spacing="ddpm"), "DiffPIR 1"),
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
    known = op.observed(torch.ones_like(y)).flatten() > 0
    w2 = distance(Law(got.G[None, :, known], got.V[None]), problems[index]).w2
    expected = law(method, problems[index], 20)
    assert w2 == pytest.approx(expected.w2, rel=1e-6)
    assert 2 * w2 == pytest.approx(GRF12[method, 20][index], rel=0.01)


def test_the_code_of_the_exact_posterior_has_distance_zero():
    prior, operators, problems = grf12()
    for op, problem in zip(operators, problems, strict=True):
        y = op.A(torch.zeros(1, 1, 12, 12, dtype=torch.float64))
        got, _ = law_of(GaussianPosterior(tolerance=1e-12), op, prior, 0.025, y)
        known = op.observed(torch.ones_like(y)).flatten() > 0
        assert distance(Law(got.G[None, :, known], got.V[None]), problem).w2 < 1e-7


@pytest.mark.slow
def test_dps_has_its_mean_field_law():
    prior, operators, problems = grf12()
    chains, problem = 64, problems[0]
    ratios = []
    for seed in range(8):
        noise = Noise(seed + 10, list(range(2))).normal(torch.zeros(2, 1, 12, 12).double())
        x = prior.decode(noise[:1], torch.Size((1, 1, 12, 12)))
        y = operators[0].A(x) + 0.025 * noise[1:]
        samples = DPS(1000, strength=3.0)(
            y.expand(chains, -1, -1, -1),
            operators[0],
            prior,
            0.025,
            Noise(seed, list(range(chains))),
        ).flatten(1)
        ratios.append(samples.var(dim=0).sum() / trace(problem.posterior_cov))
    assert torch.stack(ratios).mean().item() == pytest.approx(1.0915, rel=0.05)


def variances(scheme, S, times, exact_start=False):
    """Variance of each mode after Pierret and Galerne's schemes, from the law engine."""
    return propagate(
        Law(torch.zeros(len(S), 1, 1, dtype=S.dtype), torch.ones(len(S), 1, 1, dtype=S.dtype)),
        (scheme(S, t, s) for t, s in zip(times, times[1:], strict=False)),
    ).V.flatten()


def level(t):
    """B(t), the integral of beta(t) = 0.05 + 9.95 t."""
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
        # of the reverse ODE, beta (x + score), and once more the score for the SDE
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
