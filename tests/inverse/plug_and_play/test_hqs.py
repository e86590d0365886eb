import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from contracts import check_solver, dense, measure
from oracles import Dense, Seeing
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.base import Quality
from genprior.inverse.plug_and_play.hqs import (
    HQS,
    SCHEDULED,
    START,
    SUITED,
    UNROLLED,
    kind_of,
)
from genprior.inverse.plug_and_play.posterior_mean import VIEWS, PosteriorMean
from genprior.inverse.plug_and_play.schedules import TRAINED
from genprior.inverse.self_ensemble import mean_of_views, sees_holes
from genprior.inverse.tikhonov import smooth_start
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.clipping import Clipping
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import box_hole, random_keep
from genprior.operators.phase_retrieval import PhaseRetrieval
from genprior.operators.superres import SuperResolution

NOISE = Noise(0, [0, 1])


class Spy(Dense):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.seen.append((x, sigma))
        return super().denoise(x, sigma)


def test_laws() -> None:
    check_solver(HQS(steps=3))


@pytest.mark.parametrize(
    "op",
    [
        Denoising(),
        Inpainting(random_keep((1, 1, 5, 6), 0.4)),
        Blur(torch.tensor([[1.0, 2, 4]]), "circular"),
        SuperResolution(2, image_size=(5, 6)),
    ],
    ids=lambda op: type(op).__name__,
)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
@pytest.mark.parametrize("relaxation", [0.0, 0.7])
@pytest.mark.parametrize("prior", [Dense(), Seeing()], ids=lambda prior: type(prior).__name__)
def test_agrees_with_dense_algebra(
    op: Operator, noise_std: float, relaxation: float, prior: Dense
) -> None:
    shape = (3, 5, 6)
    y = measure(op, prior.draw(2, shape), torch.tensor(noise_std))
    A, steps, coupling = dense(op, torch.zeros(1, *shape).double()), 3, 0.4
    x = smooth_start(y, op, START)
    if sees_holes(prior, op):
        x, steps = PosteriorMean(1)(y, op, prior, noise_std, NOISE), steps + 1
    for sigma in (0.3, math.sqrt(0.3 * 0.02), 0.02):
        # the authors put a floor of 0.001 under the noise of the data
        rho = coupling * max(noise_std, 0.001) ** 2 / sigma**2
        normal = A.mT @ A + rho * torch.eye(A.shape[1], dtype=A.dtype)
        rhs = y.flatten(1) @ A + rho * x.flatten(1)
        u = torch.linalg.solve(normal, rhs.mT).mT
        S = prior.cov(shape)
        gain = S @ torch.linalg.inv(S + sigma**2 * torch.eye(len(S), dtype=S.dtype))
        x_hat = 0.5 + (u - 0.5) @ gain.mT
        x = x_hat if sigma == 0.02 else x_hat + relaxation * (x_hat - u)
        x = x.reshape(2, *shape).detach()
    levels = {"sigma_max": 0.3, "exact_max": 0.3, "informed_max": 0.3}
    solver = HQS(steps, coupling, **levels, sigma_min=0.02, exact_min=0.02, relaxation=relaxation)
    ours = solver(y, op, prior, noise_std, NOISE)
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-10)


def test_only_symmetries_of_the_prior_are_used() -> None:
    """Images that are not square stay as they are where the prior has none."""
    prior = Spy()
    prior.symmetries = (0,)
    y = measure(Denoising(), prior.draw(2, (1, 4, 5)), torch.tensor(0.1))
    HQS(steps=5)(y, Denoising(), prior, 0.1, NOISE)
    assert [x.shape for x, _ in prior.seen] == 5 * [y.shape]


def test_the_levels_fall_geometrically_from_the_noise_of_the_data_at_least() -> None:
    prior = Spy()
    y = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)
    y, noise_std = y.repeat_interleave(2, 0)[:3], torch.tensor([0.0, 0.1, 0.4])
    solver = HQS(5, sigma_max=0.2, sigma_min=0.01, exact_max=0.15, exact_min=0.02)
    solver(y, Denoising(), prior, noise_std, Noise(0, [0, 1, 2]))
    levels = np.array([sigma.numpy() for _, sigma in prior.seen])
    assert levels[0] == pytest.approx([0.15, 0.2, 0.4])
    assert levels[-1] == pytest.approx([0.02, 0.01, 0.01])
    assert np.diff(np.log(levels), n=2, axis=0) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("steps, views", [(1, 0), (2, 0), (3, 1), (11, 3), (24, 8), (60, 8)])
def test_a_third_of_the_evaluations_find_where_to_start(steps: int, views: int) -> None:
    seen = []

    class Watching(Seeing):
        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            seen.append(False)
            return super().denoise(x, sigma)

        def denoise_masked(self, *arguments: object) -> Tensor:
            seen.append(True)
            return super().denoise_masked(*arguments)

    prior, op = Watching(), Inpainting(random_keep((2, 1, 4, 3), 0.5))
    y = op.A(prior.draw(2, (1, 4, 3)))
    HQS(steps)(y, op, prior, 0.0, NOISE)
    assert seen[:views] == [True] * views and sum(seen) == views
    assert len(seen) == HQS(steps).nfe == steps


def test_known_pixels_without_noise_are_met_as_the_floor_allows() -> None:
    prior, keep, steps = Spy(), random_keep((2, 1, 6, 6), 0.5), 4
    op = Inpainting(keep)
    y = op.A(prior.draw(2, (1, 6, 6)))
    HQS(steps)(y, op, prior, 0.0, NOISE)
    for k, (u, sigma) in enumerate(prior.seen):
        upright = u.rot90(-k, (-2, -1))  # steps 0 to 3 are quarter turns
        rho = 0.1 * 0.001**2 / sigma[0] ** 2
        pull = (op.A(upright) - y).abs().max()
        # u - y = rho (x - y) / (1 + rho), and images stay within 1.5 of each other
        assert 0 < pull < 1.5 * rho


def test_more_coupling_trusts_the_data_less() -> None:
    prior = Dense()
    y = measure(Denoising(), prior.draw(2, (1, 6, 5)), torch.tensor(0.1))
    far = [
        (HQS(6, coupling)(y, Denoising(), prior, 0.1, NOISE) - y).norm().item()
        for coupling in (0.01, 0.1, 10.0)
    ]
    assert far == sorted(far)


def kind(op: Operator, noise_std: float, prior: object, *shape: int) -> str:
    return kind_of(op.A(torch.zeros(1, *shape)), op, prior, noise_std)


def test_the_kinds_of_measurements_are_told_apart() -> None:
    shape, sees, blind = (3, 24, 20), Seeing(), Dense()
    box = Inpainting(~box_hole((1, *shape), 9, 8))
    scattered = Inpainting(random_keep((1, *shape), 0.5))
    few = Inpainting(random_keep((1, *shape), 0.8))
    assert kind(box, 0.0, sees, *shape) == "hole"
    assert kind(box, 0.1, sees, *shape) == "noisy hole"
    assert kind(scattered, 0.0, sees, *shape) == kind(few, 0.0, sees, *shape) == "scattered holes"
    assert kind(scattered, 0.0, blind, *shape) == "other"
    blur = Blur(torch.tensor([[1.0, 2, 4]]), "circular")
    assert kind(blur, 0.1, sees, *shape) == "noisy blur" and kind(blur, 0, sees, *shape) == "blur"
    assert kind(SuperResolution(2), 0.1, sees, *shape) == "noisy downsampling by 2"
    assert kind(SuperResolution(4), 0.1, sees, *shape) == "noisy downsampling"
    assert kind(SuperResolution(2), 0.0, sees, *shape) == "downsampling"
    assert kind(Denoising(), 0.1, sees, *shape) == "other"
    assert kind(PhaseRetrieval(), 0.1, sees, *shape) == "magnitudes"
    assert kind(Clipping(), 0.1, sees, *shape) == "noisy clipping"
    assert kind(Clipping(), 0.0, sees, *shape) == "clipping" not in SUITED


@pytest.mark.parametrize("kind", SUITED)
def test_better_qualities_take_more_evaluations(kind: str) -> None:
    fast, default, best = (HQS(**SUITED[kind][quality]) for quality in get_args(Quality))
    assert fast.nfe < default.nfe <= best.nfe <= HQS().nfe
    assert all((each.views or 0) <= each.steps for each in (fast, default, best))


def test_the_documented_numbers_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[3] / "docs" / "solvers.md").read_text()
    rows = text.split("<!-- suited -->")[1].strip().splitlines()
    documented = {}
    for row in rows:
        name, *counts = (cell.strip() for cell in row.strip("|").split("|"))
        documented[name] = [int(count) for count in counts]
    expected = {
        kind + (", other denoisers" if kind in {*SCHEDULED, *UNROLLED} else ""):
            [HQS(**settings[quality]).nfe for quality in get_args(Quality)]
        for kind, settings in SUITED.items()
    }
    for kind, names in SCHEDULED.items():
        expected[f"{kind}, other ddpm"] = [
            HQS(schedule=names[quality]).nfe for quality in get_args(Quality)
        ]
    for kind, names in UNROLLED.items():
        expected[kind] = [
            HQS(schedule=names[quality]).nfe if quality in names
            else HQS(**SUITED.get(kind, {}).get(quality, {})).nfe for quality in get_args(Quality)
        ]
    expected["noise only"] = [VIEWS[quality] for quality in get_args(Quality)]
    assert documented == expected


def test_a_measurement_without_curves_keeps_the_settings() -> None:
    y = torch.zeros(1, 1, 4, 4)
    assert HQS(5, coupling=0.3).suited(y, Denoising(), Dense(), 0.1, "fast") == HQS(5, 0.3)


@pytest.mark.parametrize("op, names", [
    (Blur(torch.tensor([[1.0, 2, 4]]), "circular"), SCHEDULED["noisy blur"]),
    (SuperResolution(2), SCHEDULED["noisy downsampling by 2"]),
    (SuperResolution(3), SCHEDULED["noisy downsampling"]),
])
@pytest.mark.parametrize("quality", get_args(Quality))
def test_priors_that_trained_schedules_suit_have_them(
    op: Operator, names: dict[Quality, str], quality: Quality
) -> None:
    prior, y = Dense(), op.A(torch.zeros(1, 1, 24, 24))
    other = HQS().suited(y, op, prior, 0.1, quality)
    prior.suits_schedules = True
    assert HQS().suited(y, op, prior, 0.1, quality) == HQS(schedule=names[quality])
    assert HQS().suited(y, op, prior, 0.0, quality).schedule is other.schedule is None


@pytest.mark.parametrize("quality", get_args(Quality))
@pytest.mark.parametrize("kind", UNROLLED)
def test_priors_with_a_network_for_unrolled_steps_have_its_schedules(
    kind: str, quality: Quality
) -> None:
    few, wide = torch.ones(2, 1, 1, 24, 24)
    few[..., ::2, ::2] = wide[..., 4:20, 4:20] = 0
    operators = {
        "blur": Blur(torch.tensor([[1.0, 2, 4]]), "circular"), "hole": Inpainting(wide),
        "downsampling by 2": SuperResolution(2), "downsampling": SuperResolution(3),
        "scattered holes": Inpainting(few),
    }
    prior, op = Seeing(), operators[kind.removeprefix("noisy ")]
    y, noise_std = op.A(torch.zeros(1, 1, 24, 24)), 0.1 if "noisy" in kind else 0.0
    assert kind_of(y, op, prior, noise_std) == kind
    before = HQS().suited(y, op, prior, noise_std, quality)
    prior.is_unrolled = prior.suits_schedules = True
    found = HQS().suited(y, op, prior, noise_std, quality)
    if quality in UNROLLED[kind]:
        assert found == HQS(schedule=UNROLLED[kind][quality])
        assert TRAINED[found.schedule].unrolled
    else:
        assert found == before and found.schedule is None


@pytest.mark.parametrize("views, steps", [(0, 3), (2, 3), (3, 3), (8, 2)])
def test_the_number_of_views_can_be_set(views: int, steps: int) -> None:
    prior, op = Seeing(), Inpainting(random_keep((2, 1, 4, 3), 0.5))
    y = op.A(prior.draw(2, (1, 4, 3)))
    prior.symmetries = (0, 2, 4, 6)
    x = HQS(steps, views=views)(y, op, prior, 0.0, NOISE)
    if views >= steps:  # nothing is left for refinements
        expected = mean_of_views(y, op, prior, torch.zeros(2), (0, 4, 6, 2)[:steps])
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)
    else:
        assert not torch.equal(x, HQS(steps)(y, op, prior, 0.0, NOISE)) or views == 1
