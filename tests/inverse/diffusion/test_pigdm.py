import math

import pytest
import torch
from contracts import check_solver, dense, measure
from golden import distance
from oracles import Crooked, Dense, Replay, Silence, normals
from papers import alpha_bars, ddim, measurement, predict
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.exact_laws import law_of
from genprior.inverse.diffusion.pigdm import PiGDM
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser

OPERATORS = [
    Denoising(),
    Inpainting(random_keep((1, 1, 4, 6), 0.4)),
    Blur(torch.tensor([[1.0, 2, 4]]), "circular"),
    SuperResolution(2),
]


@pytest.mark.parametrize("variant", ["consistent", "published"])
def test_laws(variant: str) -> None:
    check_solver(PiGDM(steps=5, variant=variant))


def in_the_papers_notation(
    solver: PiGDM, y: Tensor, op: Operator, prior: Denoiser, noise_std: float, draws: list[Tensor]
) -> Tensor:
    """The sampler for one image, with autograd and dense algebra."""
    u, *rest = draws
    levels = alpha_bars(solver.steps)
    A, v = dense(op, u), measurement(y, op, u)
    for k, (a, a_next) in enumerate(zip(levels, levels[1:], strict=False)):
        u = u.detach().requires_grad_()
        u_hat = predict(prior, u, a)
        variance = 4 * (solver.prior_var or 0.25)
        r2 = variance * (1 - a) / (a * variance + 1 - a)
        if solver.prior_var is None and solver.variant == "consistent":
            r2 = max(r2, (1 - a) / a - (1 - a_next) / a_next)
        gram = r2 * A @ A.mT + (2 * noise_std) ** 2 * torch.eye(len(A), dtype=A.dtype)
        weights = torch.linalg.pinv(gram, hermitian=True) @ (v - op.A(u_hat)).detach().flatten()
        g = torch.autograd.grad(u_hat, u, (A.mT @ weights).reshape(u.shape))[0]
        z = rest[k] if k < len(rest) else torch.zeros_like(u)
        u, u_hat = u.detach(), u_hat.detach()
        if solver.variant == "published":
            u = ddim(u, u_hat, z, a, a_next, solver.eta) + (a_next * a) ** 0.5 * r2 * g
        else:
            u = ddim(u, u_hat + (1 - a) / a**0.5 * g, z, a, a_next, solver.eta)
    return (u + 1) / 2


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: type(op).__name__)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
@pytest.mark.parametrize("variant", ["consistent", "published"])
@pytest.mark.parametrize(("eta", "prior_var"), [(1.0, None), (0.4, 0.06)])
def test_agrees_with_the_paper_in_its_own_notation(
    op: Operator, noise_std: float, variant: str, eta: float, prior_var: float | None
) -> None:
    solver = PiGDM(4, eta, variant, prior_var, spacing="ddpm")
    x, *draws = normals(5, 1, 3, 4, 6)
    y = measure(op, 0.5 + 0.2 * x, torch.tensor(noise_std))
    ours = solver(y, op, Crooked(), noise_std, Replay(draws))
    theirs = in_the_papers_notation(solver, y, op, Crooked(), noise_std, draws)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * max(1, theirs.abs().max()))


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: type(op).__name__)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_mean_is_exact_for_independent_pixels(op: Operator, eta: float) -> None:
    prior, noise_std, shape = Dense(std=0.2, length=0), 0.1, (1, 4, 6)
    y = measure(op, prior.draw(1, shape), torch.tensor(noise_std))
    A, S = dense(op, torch.zeros(1, *shape, dtype=y.dtype)), prior.cov(shape)
    K = S @ A.mT @ (A @ S @ A.mT + noise_std**2 * torch.eye(len(A))).inverse()
    expected = 0.5 + K @ (y.flatten() - A.sum(dim=1) / 2)
    solver = PiGDM(40, eta, prior_var=0.04, sigma_max=200.0)
    mean = solver(y, op, prior, noise_std, Silence()).flatten()
    # the first state has mean 1/2 whatever y is; 0.2 / 200 is how much of that DDIM keeps
    scale = (expected - 0.5).abs().max()
    assert (mean - expected).abs().max() < (1e-3 if eta == 0 else 1e-6) * scale

    other = PiGDM(40, eta, "published", prior_var=0.04, sigma_max=200.0)
    wrong = other(y, op, prior, noise_std, Silence()).flatten()
    assert (wrong - expected).abs().max() > 5e-3 * scale


def test_mean_and_variance_of_samples_are_those_of_the_recursion() -> None:
    prior, noise_std, num_samples, steps = Dense(std=0.2, length=0), 0.1, 1500, 12
    op = Inpainting(random_keep((1, 1, 4, 5), 0.5))
    y = measure(op, prior.draw(1, (1, 4, 5)), torch.tensor(noise_std))
    solver = PiGDM(steps, prior_var=0.04, sigma_max=20.0)
    noise = Noise(0, [(0, k) for k in range(num_samples)])
    x = solver(y.expand(num_samples, -1, -1, -1), op, prior, noise_std, noise)

    levels = torch.linspace(20 ** (1 / 7), 0.005 ** (1 / 7), steps).double() ** 7
    levels = [*levels.tolist(), 0.0]
    for known in (True, False):
        precision = 1 / 0.04 + known / noise_std**2
        variance, weight = 0.25 + 20**2, 0.0
        for s, t in zip(levels, levels[1:], strict=False):
            slope = 1 / s**2 / (precision + 1 / s**2)  # of E[x0 | x, y] in x
            data = known / noise_std**2 / (precision + 1 / s**2)
            keep = (t / s) ** 2
            weight = (1 - keep) * (data + slope * weight) + keep * weight
            variance = ((1 - keep) * slope + keep) ** 2 * variance + t**2 * (1 - keep)
        pixels = (op.mask > 0.5).flatten() == known
        samples = x.flatten(1)[:, pixels]
        z = (samples.mean(dim=0) - 0.5 - weight * (y.flatten()[pixels] - 0.5)) / variance**0.5
        count = int(pixels.sum())
        # 5 standard deviations of the largest of `count` means, and of a mean square
        assert z.abs().max() < 5 / math.sqrt(num_samples)
        ratio = samples.var(dim=0).mean().item() / variance
        assert ratio == pytest.approx(1, abs=5 * math.sqrt(2 / (num_samples * count)))


@pytest.mark.parametrize(
    ("variant", "steps", "eta", "noise_std", "w2", "mean", "ratio"),
    [
        pytest.param("consistent", 100, 1.0, 0.05, 0.0213, 0.0100, 0.745, marks=pytest.mark.slow),
        ("published", 20, 1.0, 0.01, 0.0452, 0.0126, 0.308),
        ("published", 20, 0.0, 0.2, 0.0695, 0.0200, 0.455),
    ],
)
def test_distance_to_the_posterior_is_as_computed_independently(
    variant: str, steps: int, eta: float, noise_std: float, w2: float, mean: float, ratio: float
) -> None:
    found = distance(PiGDM(steps, eta, variant, 0.25, spacing="ddpm"), noise_std)
    assert found == pytest.approx((w2, mean, ratio), rel=0.01)


def test_few_steps_do_not_overshoot_along_low_frequencies() -> None:
    prior, op, shape = Dense(length=60.0), SuperResolution(4), (1, 12, 12)
    S, y = prior.cov(shape), op.A(prior.draw(1, shape))
    A = dense(op, torch.zeros(1, *shape).double())
    C = S - S @ A.mT @ torch.linalg.solve(A @ S @ A.mT + 1e-4 * torch.eye(len(A)).double(), A @ S)
    ratios = []
    for prior_var in (None, 0.25):
        law, _ = law_of(PiGDM(10, prior_var=prior_var), op, prior, 0.01, y)
        ratios.append((law.V.trace() / C.trace()).sqrt().item())
    assert torch.linalg.eigvalsh(S)[-1] > 8  # 0.25 is far below this
    assert 0.5 < ratios[0] < 1 and ratios[1] > 10


def test_errors() -> None:
    with pytest.raises(ValueError, match="'consistent' or 'published', got 'official'"):
        PiGDM(variant="official")
