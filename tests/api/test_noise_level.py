"""Noise level estimation by maximum likelihood under a prior."""

import math
from pathlib import Path

import deepinv
import numpy as np
import pytest
import torch
from shell import photo, sidecar, succeed
from skimage import data
from small import HOLE, OPERATORS, Shrink, batch
from torch import Tensor

from genprior import degrade, estimate_noise, load_prior, make_operator, restore
from genprior.api.noise_level import TOLERANCE, _root, _root_between
from genprior.core.errors import SettingError
from genprior.io.images import write_image
from genprior.operators.masks import random_keep
from genprior.priors.ddpm import DDPM
from genprior.priors.texture import Texture

LEVELS = torch.tensor([0.03, 0.1])


@pytest.fixture(scope="module")
def prior() -> DDPM:
    return load_prior("ddpm")


def photos() -> Tensor:
    crops = [data.astronaut()[:150, 200:350], data.chelsea()[60:210, 100:250]]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255


def test_it_is_the_maximum_of_the_likelihood_of_a_gaussian() -> None:
    frequency = torch.fft.fftfreq(64).square()
    spectrum = 0.05 / (0.003 + frequency[:, None] + frequency[None]) / 64
    prior = Texture.from_spectrum(spectrum)
    x = prior.decode(torch.randn(prior.latent_shape((2, 1, 64, 64)),
                                 generator=torch.Generator().manual_seed(0)), (2, 1, 64, 64))
    y = degrade(x, make_operator("denoise"), LEVELS)
    grid = torch.linspace(-4, -1.5, 300).exp()
    likelihood = torch.stack([
        Texture.from_spectrum(spectrum + level**2).log_prob(y) for level in grid
    ])
    best = grid[likelihood.argmax(dim=0)]
    assert torch.allclose(estimate_noise(y, prior), best, rtol=0.04)


@pytest.mark.parametrize(("task", "side"), [("denoise", 150), ("deblur", 80), ("superres", 150)])
def test_of_photos(prior: DDPM, task: str, side: int) -> None:
    x = photos()[..., :side, :side]
    y = degrade(x, make_operator(task, **OPERATORS[task]), LEVELS)
    found = estimate_noise(y, prior)
    assert torch.allclose(found, LEVELS, rtol=0.06)
    assert torch.equal(estimate_noise(y[1:], prior), found[1:])


@pytest.mark.parametrize("hole", ["blot", "lines", "scattered", "most"])
def test_of_photos_with_holes(prior: DDPM, hole: str) -> None:
    side = 150 if hole == "most" else 80  # enough known pixels for an estimate
    keep = torch.ones(1, 1, side, side)
    if hole == "blot":
        keep[..., 20:50, 10:60] = 0
    elif hole == "lines":
        keep[..., 15::20, :] = keep[..., 16::20, :] = 0
    else:
        keep = random_keep(keep.shape, 0.3 if hole == "scattered" else 0.8).float()
    y = degrade(photos()[..., :side, :side], make_operator("inpaint", keep=keep), LEVELS)
    found = estimate_noise(y, prior, keep=keep[0, 0])
    assert torch.allclose(found, LEVELS, rtol=0.1)
    if hole == "blot":
        assert torch.equal(estimate_noise(y[1:] + (1 - keep), prior, keep=keep), found[1:])


def test_tiles_are_taken_where_a_large_image_is_known(prior: DDPM) -> None:
    keep = torch.zeros(1, 1, 150, 150)
    keep[..., 90:140, 10:60] = 1
    x = photos()[1:]
    y = degrade(x, make_operator("inpaint", keep=keep), 0.05)
    assert estimate_noise(y, prior, keep=keep).item() == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("level", [0.001, 0.002, 0.03, 0.2, 0.5, 2.0])
@pytest.mark.parametrize("guess", [0.002, 0.01, 0.2, 0.5])
def test_the_level_is_found_from_any_guess(level: float, guess: float) -> None:
    def excess(log_sigma: float) -> float:
        return 3 * math.tanh(math.log(level) - log_sigma)

    found = math.exp(_root(excess, math.log(guess)))
    assert found == pytest.approx(min(max(level, 0.002), 0.5), rel=0.01)


@pytest.mark.parametrize("bend", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize("a, b", [(-4.0, -2.5), (-1.0, -3.2), (-3.01, -2.0)])
def test_a_root_is_found_to_the_tolerance_in_few_evaluations(
    a: float, b: float, bend: float
) -> None:
    seen = []

    def f(x: float) -> float:
        seen.append(x)
        t = math.tanh(x + 3)
        return -t - bend * t**2

    root = _root_between(f, a, f(a), b, f(b))
    assert abs(root + 3) < TOLERANCE and len(seen) <= 10
    assert all(min(a, b) <= x <= max(a, b) for x in seen)


def test_the_guess_is_near_the_level(prior: DDPM, monkeypatch) -> None:
    levels, denoise = [], prior.denoise

    def count(x: Tensor, sigma: float | Tensor) -> Tensor:
        levels.append(sigma)
        return denoise(x, sigma)

    monkeypatch.setattr(prior, "denoise", count)
    y = degrade(photos(), make_operator("denoise"), LEVELS)
    estimate_noise(y, prior)
    assert len(levels) <= 2 * 6


def test_a_photo_without_noise_has_a_low_level(prior: DDPM) -> None:
    assert 0.002 <= estimate_noise(photos()[0], prior) < 0.006  # it has its own grain


def test_restoring_with_it_is_restoring_with_that_number() -> None:
    y = degrade(batch(), make_operator("denoise"), LEVELS)
    auto = restore(y, make_operator("denoise"), Shrink(), noise_std="auto")
    assert torch.equal(auto.noise_std, estimate_noise(y, Shrink()))
    external = restore(y, deepinv.physics.Denoising(), Shrink(), noise_std="auto")
    assert torch.equal(external.image, auto.image)
    given = restore(y, make_operator("denoise"), Shrink(), noise_std=auto.noise_std)
    assert torch.equal(auto.image, given.image)


def test_errors(prior: DDPM) -> None:
    operator = make_operator("inpaint", keep=~HOLE)
    with pytest.raises(SettingError, match="Shrink cannot inpaint.*: give the level"):
        restore(batch(), operator, Shrink(), noise_std="auto")
    of_channels = (~HOLE).repeat(1, 3, 1, 1)
    of_channels[:, 0] = True
    with pytest.raises(SettingError, match="known in all channels or in none: give a number"):
        restore(batch(), make_operator("inpaint", keep=of_channels), Shrink(), noise_std="auto")
    with pytest.raises(ValueError, match=r"\(H, W\) or .* got \(1, 1, 5, 20\) for"):
        estimate_noise(batch(), prior, keep=HOLE[..., :5, :])
    with pytest.raises(SettingError, match="does not describe images that are blurred or down"):
        restore(batch(), make_operator("superres", factor=2), Shrink(), noise_std="auto")
    with pytest.raises(SettingError, match="one for each image or 'auto', got 'much'"):
        restore(batch(), make_operator("denoise"), Shrink(), noise_std="much")
    with pytest.raises(SettingError, match="'auto' is no law of noise"):
        degrade(batch(), operator, "auto")
    class Broken(Shrink):
        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            return super().denoise(x, sigma) * torch.nan

    with pytest.raises(ValueError, match="keep marks no pixel of an image as known"):
        estimate_noise(batch(), prior, keep=0 * HOLE)
    with pytest.raises(FloatingPointError, match="the network gave NaN"):
        estimate_noise(batch(), Broken())
    with pytest.raises(SettingError, match="by a denoiser, and Linear is not one: give the level"):
        estimate_noise(batch(), torch.nn.Linear(1, 1))


@pytest.mark.parametrize("command", [
    ["denoise"], ["inpaint", "--mask", "box=9x20", "--noise", "auto", "--steps", 2]
])
def test_the_commands_estimate_the_level(tmp_path: Path, command: list[object]) -> None:
    x = torch.from_numpy(photo(size=(64, 96))).permute(2, 0, 1)[None] / 255
    write_image(tmp_path / "a.png", degrade(x, make_operator("denoise"), 0.05))
    told = succeed(*command, tmp_path / "a.png").stdout
    record = sidecar(tmp_path / "a.genprior.png")
    assert abs(record["noise"] - 0.05) < 0.005 and record["noise_estimated"]
    assert f"noise {record['noise']:.4g} (estimated)" in told
    given = ["--noise", record["noise"], "-o", tmp_path / "b.png"]
    succeed(*command, tmp_path / "a.png", *given)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.genprior.png").read_bytes()
