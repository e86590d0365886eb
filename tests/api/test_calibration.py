import json
from pathlib import Path

import deepinv
import msgspec
import pytest
import torch
from oracles import Dense
from torch import Tensor

import genprior
from genprior.api.calibration import (
    SCHEMA,
    Calibration,
    Entry,
    conformal_scale,
    features,
    find_entries,
    intervals,
    outside,
    predicted_width,
    read_calibration,
    signature,
    weights_digest,
)
from genprior.api.factory import as_operator, make_solver
from genprior.core.errors import RestorationWarning, SettingError
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution


def photos(count: int, seed: int) -> list[Tensor]:
    """Ratios of pixels of photos that differ in their scale and in their number of pixels."""
    g = torch.Generator().manual_seed(seed)
    sizes = torch.randint(50, 150, (count,), generator=g)
    scales = (0.5 * torch.randn(count, generator=g)).exp()
    return [s * torch.randn(int(n), generator=g).abs() for n, s in zip(sizes, scales, strict=True)]


def test_new_photos_are_covered_as_promised_on_average() -> None:
    covered, runs, count = [], 300, 30
    for run in range(runs):
        *first, new = photos(count + 1, run)
        covered.append((new <= conformal_scale(first, 0.9)).float().mean())
    mean, error = torch.stack(covered).mean(), torch.stack(covered).std() / runs**0.5
    # by the theorem between 0.9 and 0.9 + 2 / (n + 1), the shares being in [0, 1]
    assert 0.9 - 3 * error <= mean <= 0.9 + 2 / (count + 1) + 3 * error


def test_the_scale_is_the_smallest_that_is_allowed() -> None:
    ratios = [torch.arange(1.0, 101) for _ in range(19)]
    # (19 R + 1) / 20 <= 0.1 allows R <= 1 / 19, that is 5 of 100 pixels
    assert conformal_scale(ratios, 0.9) == pytest.approx(95)
    with pytest.raises(SettingError, match="0.9 needs at least 9 photos, got 8"):
        conformal_scale(ratios[:8], 0.9)
    assert conformal_scale(ratios[:9], 0.9) == pytest.approx(100)


def test_the_predicted_width_is_local_and_0_at_known_pixels() -> None:
    std = torch.full((1, 1, 12, 12), 0.2)
    std[..., :4, :] = 0
    width = predicted_width(std)
    assert (width[..., :4, :] == 0).all()
    torch.testing.assert_close(width[..., 4:, :], std[..., 4:, :])
    std[..., 8, 8] = 0.4
    assert 0.2 < predicted_width(std)[0, 0, 8, 6] < predicted_width(std)[0, 0, 8, 8] < 0.4


def test_operators_are_told_apart() -> None:
    shape = (2, 3, 20, 24)
    blur = Blur(gaussian_kernel(1.6), "circular")
    texts = [signature(op, shape) for op in (
        Denoising(), Inpainting(random_keep(shape, 0.5)), blur,
        Blur(gaussian_kernel(1.5), "circular"), Blur(gaussian_kernel(1.6), "reflect"),
        SuperResolution(2, "box"), SuperResolution(2, "bicubic"), SuperResolution(4, "box"),
    )]
    assert len(set(texts)) == len(texts)
    assert signature(blur, (1, 3, 50, 40)) == texts[2]  # the size does not matter
    assert texts[:2] == ["identity", "mask"]


def test_masks_of_other_holes_are_outside() -> None:
    shape = (1, 3, 48, 48)
    y, width = torch.zeros(shape), torch.full(shape, 0.1)

    def of(keep: Tensor) -> dict[str, float]:
        return features(Inpainting(keep), y, width, torch.ones(1))[0]

    hole = torch.ones(1, 1, 48, 48)
    hole[..., 18:30, 18:30] = 0
    half, dense, box = (of(k) for k in (random_keep(shape, 0.5), random_keep(shape, 0.9), hole))
    assert half["missing"] == pytest.approx(0.5) and box["missing"] == pytest.approx(1 / 16)
    assert box["inner"] == pytest.approx(100 / 144) and half["inner"] < 0.01
    calibrated = entry(ranges={name: (value, value) for name, value in half.items()})
    assert outside(calibrated, half) == ""
    assert "missing pixels is 0.9, beyond the 0.5 to 0.5" in outside(calibrated, dense)
    sparse = of(random_keep(shape, 1 / 16))
    calibrated = entry(ranges={name: (value, value) for name, value in sparse.items()})
    assert "without a known neighbour is 0.694" in outside(calibrated, box)


def entry(**changes: object) -> Entry:
    given = {
        "task": "denoise", "operator": "identity", "noise": 0.1, "prior": "p", "weights": "w",
        "solver": "s", "samples": 4, "antithetic": True, "images": 60, "size": (8, 8),
        "scale": 2.0, "ranges": {"width": (0.0, 1.0), "misfit": (0.0, 9.0)},
    }
    return Entry(**(given | changes))


def test_what_was_not_calibrated_is_named() -> None:
    solver = make_solver("moment-matched")
    known = Calibration(calibration=SCHEMA, coverage=0.9, entries=[entry(solver=str(solver))])
    given = {"operator": "identity", "noise_std": 0.1, "weights": "w", "solver": solver,
             "samples": 4, "antithetic": True}
    assert find_entries(known, **given) == (known.entries, "")
    for change, text in (
        ({"operator": "mask"}, "this operator"), ({"noise_std": 0.2}, "noise 0.2"),
        ({"weights": "v"}, "this prior"), ({"samples": 5}, "5 samples"),
        ({"solver": make_solver("mmps")}, "MMPS"), ({"antithetic": False}, "independent samples"),
    ):
        found, reason = find_entries(known, **(given | change))
        assert not found and reason.startswith(text) and "denoise (noise 0.1, 4" in reason


def test_restore_returns_intervals_or_says_why_not(tmp_path: Path) -> None:
    prior, solver = Dense(dtype=torch.float32), make_solver("moment-matched", steps=2)
    y = (prior.draw(2, (1, 6, 5)) + 0.1).float()
    weights = weights_digest(prior)
    file = tmp_path / "calibration.json"
    calibrated = entry(solver=str(solver), weights=weights)
    text = {"calibration": SCHEMA, "coverage": 0.9}
    file.write_bytes(msgspec.json.encode(text | {"entries": [calibrated]}))
    given = (y, Denoising(), prior, solver)
    found = genprior.restore(*given, noise_std=0.1, samples=4, calibration=file)
    width = predicted_width(found.std)
    torch.testing.assert_close(found.upper - found.mean, 2 * width)
    torch.testing.assert_close(found.mean - found.lower, 2 * width)
    assert not found.warnings
    with pytest.warns(RestorationWarning, match="image 1: no calibrated intervals: noise 0.2"):
        some = genprior.restore(*given, noise_std=[0.1, 0.2], samples=4, calibration=str(file))
    assert some.lower[0].isfinite().all() and some.upper[1].isnan().all()
    plain = genprior.restore(*given, noise_std=0.1, samples=4)
    assert plain.lower is None and torch.equal(plain.mean, found.mean)
    with pytest.raises(SettingError, match="calibrated intervals need samples"):
        genprior.restore(*given, noise_std=0.1, calibration=file)


def test_intervals_of_a_physics_of_another_scale_are_found() -> None:
    def adjoint(y: Tensor) -> Tensor:
        x = y.new_zeros(*y.shape[:-1], 2 * y.shape[-1])
        x[..., ::2] = 10 * y
        return x

    physics = deepinv.physics.LinearPhysics(
        A=lambda x, **_: 10 * x[..., ::2], A_adjoint=lambda y, **_: adjoint(y),
        img_size=(1, 6, 6),
    )
    prior, solver = Dense(dtype=torch.float32), make_solver("moment-matched", steps=2)
    y = physics.A(prior.draw(1, (1, 6, 6)).float())
    operator = as_operator(physics)
    calibrated = entry(solver=str(solver), weights=weights_digest(prior),
                       operator=signature(operator, operator.image_shape(y.shape)))
    known = Calibration(calibration=SCHEMA, coverage=0.9, entries=[calibrated])
    found = genprior.restore(y, physics, prior, solver, 0.1, 4, calibration=known)
    assert found.lower.isfinite().all() and found.upper.isfinite().all()


def test_photos_beyond_those_that_calibrated_have_no_interval() -> None:
    solver = make_solver("moment-matched")
    narrow = entry(solver=str(solver), ranges={"width": (0.0, 0.2), "misfit": (0.9, 1.1)})
    known = Calibration(calibration=SCHEMA, coverage=0.9, entries=[narrow])
    y = torch.zeros(3, 1, 6, 6)
    std = torch.tensor([0.1, 0.3, 0.1]).reshape(3, 1, 1, 1).expand(y.shape)
    lower, upper, reasons = intervals(
        known, y, Denoising(), torch.full((3,), 0.1), "w", [solver] * 3, 4, True, y, std,
        torch.tensor([1.0, 1.0, 1.3]),
    )
    # the digest of a prior without parameters is the name of its class
    assert reasons[0].startswith("this prior was not calibrated")
    narrow.weights = weights_digest("w")
    lower, upper, reasons = intervals(
        known, y, Denoising(), torch.full((3,), 0.1), "w", [solver] * 3, 4, True, y, std,
        torch.tensor([1.0, 1.0, 1.3]),
    )
    assert reasons[0] == "" and (upper - lower)[0].isfinite().all()
    assert "predicted width is 0.3, beyond the 0 to 0.2" in reasons[1]
    assert "misfit is 1.3" in reasons[2] and lower[1:].isnan().all()


@pytest.mark.parametrize("content", [
    "", "[]", "{}", json.dumps({"calibration": 7, "coverage": 0.9, "entries": []}),
    json.dumps({"calibration": SCHEMA, "coverage": 2, "entries": []}),
])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(SettingError, match="other.json is no calibration"):
        read_calibration(file)
    with pytest.raises(SettingError, match="cannot be read"):
        read_calibration(tmp_path / "none.json")
