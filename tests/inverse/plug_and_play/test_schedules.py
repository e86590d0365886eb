import math
from dataclasses import replace

import pytest
import torch
from contracts import dense, measure
from oracles import Dense, Seeing
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.inverse.plug_and_play.hqs import HQS, START, refined
from genprior.inverse.plug_and_play.schedules import TRAINED, Schedule, sharpness
from genprior.inverse.self_ensemble import chosen_views, mean_of_views
from genprior.inverse.tikhonov import smooth_start
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel, motion_kernel
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution

SCHEDULE = Schedule(
    sigma=(51, 25.5, 12.75), coupling=(0.3, 0.2, 0.1), relaxation=(0.7, 1.2, 9),
    momentum=(9, 0.6, 9), sigma_power=(0.0, 0.5, 1.0), coupling_power=(0.0, 0.0, -1.0),
)


@pytest.mark.parametrize(
    "op", [Blur(torch.tensor([[1.0, 2, 4]]), "circular"), SuperResolution(2, image_size=(5, 6))],
    ids=lambda op: type(op).__name__,
)
def test_agrees_with_dense_algebra(op: Operator) -> None:
    """Each image has the numbers of its noise level; the momentum is that of the second step."""
    prior, shape, noise_std = Dense(), (3, 5, 6), torch.tensor([0.01, 0.04], dtype=torch.float64)
    y = measure(op, prior.draw(2, shape), noise_std)
    A, S = dense(op, torch.zeros(1, *shape).double()), prior.cov(shape)
    starts = smooth_start(y, op, START)
    x = refined(starts, SCHEDULE.steps(noise_std), noise_std, op.proximal(y), prior.denoise, (0,))
    for i, factor in enumerate((1, 4)):
        sigmas = (0.2, 0.1 * math.sqrt(factor), 0.05 * factor)
        couplings = (0.3, 0.2, 0.1 / factor)
        expected = before = starts[i].flatten()
        for k, (sigma, coupling) in enumerate(zip(sigmas, couplings, strict=True)):
            rho = coupling * noise_std[i] ** 2 / sigma**2
            normal = A.mT @ A + rho * torch.eye(A.shape[1], dtype=A.dtype)
            u = torch.linalg.solve(normal, A.mT @ y[i].flatten() + rho * expected)
            gain = S @ torch.linalg.inv(S + sigma**2 * torch.eye(len(S), dtype=S.dtype))
            x_hat = 0.5 + gain @ (u - 0.5)
            expected = x_hat + (0.7, 1.2, 0)[k] * (x_hat - u) + (0, 0.6, 0)[k] * (x_hat - before)
            before = x_hat
        torch.testing.assert_close(x[i].flatten(), expected, rtol=0, atol=1e-10)


def test_sharpness_is_that_of_the_spectrum() -> None:
    """Wide Gaussians remove high frequencies, motion passes them; a batch has one number each."""
    wide, narrow, motion = gaussian_kernel(2.0), gaussian_kernel(0.7), motion_kernel(9, 30.0)
    assert sharpness(wide[None, None]) == 0
    assert sharpness(narrow[None, None]) == sharpness(motion[None, None]) == 1
    middle = sharpness(gaussian_kernel(1.0)[None, None])
    assert 0 < middle < 1
    delta = torch.zeros(9, 9)
    delta[4, 4] = 1
    both = torch.stack([delta, 0 * delta + 1 / 81])[:, None]
    assert sharpness(both).tolist() == [1.0, pytest.approx(sharpness(both[1:]).item())]


def test_kernels_in_between_have_a_mean_of_both_sets() -> None:
    sharp = replace(SCHEDULE, sigma=(204, 102, 51), relaxation=(0.1, 0.2, 0.3))
    schedule, noise_std = replace(SCHEDULE, sharp=sharp), torch.tensor([0.01])
    kernel = gaussian_kernel(1.0)[None, None]
    part = sharpness(kernel).item()
    step = schedule.steps(noise_std, kernel)[0]
    assert step.sigma.item() == pytest.approx(0.2 * 4**part, rel=1e-5)
    assert step.relaxation.item() == pytest.approx(0.7 * (1 - part) + 0.1 * part, rel=1e-5)
    assert schedule.steps(noise_std)[0].sigma.item() == pytest.approx(0.2)


def test_noise_outside_of_the_training_takes_the_nearest_numbers() -> None:
    def numbers(noise_std: float) -> list[float]:
        steps = SCHEDULE.steps(torch.tensor([noise_std]))
        return [value for step in steps for value in (step.sigma.item(), step.coupling.item())]

    assert numbers(0.0) == numbers(0.001) == numbers(0.002) != numbers(0.003)
    assert numbers(0.5) == numbers(0.1) != numbers(0.09)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_schedules_are_usable(name: str) -> None:
    """Every step has all numbers, levels suit denoisers, and the last is lower than the first."""
    schedule = TRAINED[name]
    for noise_std in (0.0, 0.002, 0.1):
        steps = schedule.steps(torch.tensor([noise_std]))
        levels = [step.sigma.item() for step in steps]
        assert all(0.5 / 255 < level < 1 for level in levels) and levels[-1] < levels[0]
        assert all(step.coupling.item() > 0 for step in steps)
    assert schedule.nfe == HQS(schedule=name).nfe == schedule.views + len(steps)


def test_an_unknown_schedule_is_an_error_that_names_the_others() -> None:
    with pytest.raises(ValueError, match=f"schedule must be one of .*{next(iter(TRAINED))}"):
        HQS(schedule="other")


def test_holes_start_from_a_posterior_mean_if_their_schedule_has_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior, op, noise_std = Seeing(), Inpainting(random_keep((2, 1, 4, 3), 0.5)), torch.zeros(2)
    prior.symmetries = (0, 2, 4, 6)
    monkeypatch.setitem(TRAINED, "holes", replace(SCHEDULE, views=2))
    y = op.A(prior.draw(2, (1, 4, 3)))
    for schedule, views in (("blur-4", 0), ("holes", 2)):
        method, before = HQS(schedule=schedule), len(prior.calls)
        start = method.starting_images(y, op, prior, noise_std)[0]
        assert len(prior.calls) == before + views
        expected = smooth_start(y, op, START)
        if views:
            expected = mean_of_views(y, op, prior, noise_std, chosen_views(range(0, 8, 2), 2))
        assert torch.equal(start, expected)
        assert method.nfe == views + len(TRAINED[schedule].sigma)


def test_unrolled_schedules_take_the_network_that_was_trained_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unrolled(Dense):
        is_unrolled = True

        def denoise_unrolled(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            self.levels = [*getattr(self, "levels", []), sigma]
            return 0.9 * x

    monkeypatch.setitem(TRAINED, "own", replace(SCHEDULE, unrolled=True))
    prior, op, noise_std = Unrolled(), Blur(torch.tensor([[1.0, 2, 4]]), "circular"), 0.01
    y = op.A(prior.draw(2, (1, 5, 6)))
    x = HQS(schedule="own")(y, op, prior, noise_std, None)
    assert len(prior.levels) == 3 and not prior.calls
    start, levels = smooth_start(y, op, START), torch.full((2,), noise_std, dtype=y.dtype)
    steps = SCHEDULE.steps(levels, op.kernel)
    expected = refined(start, steps, levels, op.proximal(y), lambda x, sigma: 0.9 * x, (0,))
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)
    with pytest.raises(SettingError, match="needs a prior with a network for unrolled steps"):
        HQS(schedule="own")(y, op, Dense(), noise_std, None)
