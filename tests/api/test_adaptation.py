"""Adaptation of a prior to the known pixels of an image."""

import copy
from pathlib import Path

import pytest
import torch
from shell import refused, save_photo, sidecar, succeed
from small import Shrink
from torch import Tensor

import genprior
from genprior import adapt_prior, make_operator, restore
from genprior.api import adaptation
from genprior.core.errors import SettingError
from genprior.priors.checkpoint import save_checkpoint
from genprior.priors.ddpm import DDPM


@pytest.fixture(scope="module")
def prior() -> DDPM:
    torch.manual_seed(0)
    return DDPM(widths=(8, 16), blocks=(1, 1), holes=True).requires_grad_(False)


def stripes(height: int = 40, width: int = 48) -> Tensor:
    """An image that repeats itself."""
    columns = torch.arange(width) % 8 < 4
    return (0.2 + 0.6 * columns).expand(1, 3, height, width).clone()


def hole(*shape: int) -> Tensor:
    keep = torch.ones(1, 1, *shape, dtype=torch.bool)
    keep[..., 12:20, 20:31] = False
    return keep


def test_it_learns_what_repeats_itself(prior: DDPM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "LEARNING_RATE", 1e-2)  # this prior was never trained
    x, operator = stripes(), make_operator("inpaint", keep=hole(40, 48))
    y = operator.A(x)
    before = copy.deepcopy(prior.state_dict())
    found = adapt_prior(y, operator, prior, steps=120)
    assert found.steps == 120 and found.improved and found.error_after < 0.8 * found.error_before
    missing = ~hole(40, 48).expand_as(x)
    errors = [(restore(y, operator, p, fill="smooth").image - x)[missing].square().mean().sqrt()
              for p in (prior, found.prior)]
    assert errors[1] < 0.9 * errors[0]
    assert all(torch.equal(before[k], v) for k, v in prior.state_dict().items())
    assert not any(p.requires_grad for p in found.prior.parameters())
    # pixels in the hole are not looked at, and the seed decides on the hidden ones
    junk = torch.where(missing, torch.rand_like(y), y)
    for image, seed, same in ((junk, 0, True), (y, 1, False)):
        again = adapt_prior(image, operator, prior, steps=3, seed=seed).error_before
        assert (again == found.error_before) is same


@pytest.mark.parametrize("missing", [0.1, 0.5, 0.95])
def test_a_prior_that_got_worse_is_not_used(
    prior: DDPM, missing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "LEARNING_RATE", 1e3)
    keep = torch.rand(2, 1, 9, 130, generator=torch.Generator().manual_seed(0)) >= missing
    y = torch.rand(2, 1, 9, 130) * keep
    found = adapt_prior(y, make_operator("inpaint", keep=keep), prior, 0.1, steps=3)
    assert not found.improved
    own = prior.state_dict()
    assert all(torch.equal(own[k], v) for k, v in found.prior.state_dict().items())


def test_noise_does_not_bias_it(prior: DDPM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "LEARNING_RATE", 1e-2)
    # the hidden pixels of a constant image with noise are predicted as the constant
    x, operator = torch.full((1, 1, 32, 32), 0.7), make_operator("inpaint", keep=hole(32, 32))
    y = genprior.degrade(x, operator, 0.1)
    found = adapt_prior(y, operator, prior, 0.1, steps=60)
    assert found.error_after == pytest.approx(0.1, rel=0.15)


def test_time_ends_it(prior: DDPM) -> None:
    operator = make_operator("inpaint", keep=hole(40, 48))
    assert 1 <= adapt_prior(stripes(), operator, prior, seconds=0.3).steps < 200


def test_errors(prior: DDPM) -> None:
    x, operator = stripes(), make_operator("inpaint", keep=hole(40, 48))
    with pytest.raises(SettingError, match="only priors that inpaint .* Shrink cannot: use ddpm"):
        adapt_prior(x, operator, Shrink())
    with pytest.raises(ValueError, match="seconds must be > 0 and finite, got 0"):
        adapt_prior(x, operator, prior, seconds=0)
    with pytest.raises(ValueError, match="steps must be"):
        adapt_prior(x, operator, prior, steps=0)
    for other in (make_operator("denoise"), make_operator("superres", factor=2)):
        with pytest.raises(ValueError, match="images with missing pixels, and none are missing"):
            adapt_prior(x, other, prior)


def test_from_the_shell(prior: DDPM, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    save_checkpoint(weights, "ddpm", prior.config, prior.state_dict())
    tmp_path = tmp_path / "photos"
    tmp_path.mkdir()
    for name in ("a", "b"):
        save_photo(tmp_path / f"{name}.png")
    words = ["inpaint", tmp_path, "--prior", weights, "--mask", "box=9x9", "--degrade"]
    succeed(*words, "--adapt", "5", "-o", tmp_path / "out")
    record = sidecar(tmp_path / "out" / "a.genprior.png")
    assert record["adaptation"]["steps"] == 5 and record["operator"]["adapt"] == 5
    used = record["adaptation"]["error_after"] < record["adaptation"]["error_before"]
    assert record["adaptation"]["used"] is used
    assert any("it is not used" in text for text in record["warnings"]) is not used
    succeed(*words, "--adapt", "0.2s", "--noise", "0.05", "-o", tmp_path / "timed")
    assert sidecar(tmp_path / "timed" / "b.genprior.png")["adaptation"]["steps"] >= 1
    for bad in ("0", "-1", "soon"):
        code, message = refused(*words, "--adapt", bad, "-o", tmp_path / "bad")
        assert code == 2 and "is not a duration" in message
    law = ("--noise", "poisson=30", "-o", tmp_path / "law")
    assert "white noise" in refused(*words, "--adapt", "5", *law)[1]
