"""The noise level that a prior finds most likely."""

import numpy as np
import pytest
import torch
from shell import photo, sidecar, succeed
from skimage import data
from small import HOLE, OPERATORS, Shrink, batch
from torch import Tensor

from genprior import degrade, estimate_noise, load_prior, make_operator, restore
from genprior.errors import SettingError
from genprior.images import write_image
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


def test_a_photo_without_noise_has_next_to_none(prior: DDPM) -> None:
    assert 0.002 <= estimate_noise(photos()[0], prior) < 0.006  # it has a grain of its own


def test_restoring_with_it_is_restoring_with_that_number() -> None:
    y = degrade(batch(), make_operator("denoise"), LEVELS)
    auto = restore(y, make_operator("denoise"), Shrink(), noise_std="auto")
    assert torch.equal(auto.noise_std, estimate_noise(y, Shrink()))
    given = restore(y, make_operator("denoise"), Shrink(), noise_std=auto.noise_std)
    assert torch.equal(auto.image, given.image)


def test_errors() -> None:
    operator = make_operator("inpaint", keep=~HOLE)
    with pytest.raises(SettingError, match="from whole pictures only.*: give a number"):
        restore(batch(), operator, Shrink(), noise_std="auto")
    with pytest.raises(SettingError, match="blurred or made smaller is no draw from it"):
        restore(batch(), make_operator("superres", factor=2), Shrink(), noise_std="auto")
    with pytest.raises(SettingError, match="one for each image or 'auto', got 'much'"):
        restore(batch(), make_operator("denoise"), Shrink(), noise_std="much")
    with pytest.raises(SettingError, match="a number or one for each image, got 'auto'"):
        degrade(batch(), operator, "auto")
    class Broken(Shrink):
        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            return super().denoise(x, sigma) * torch.nan

    with pytest.raises(FloatingPointError, match="the network gave NaN"):
        estimate_noise(batch(), Broken())
    with pytest.raises(SettingError, match="by a denoiser, and Linear is none: give the level"):
        estimate_noise(batch(), torch.nn.Linear(1, 1))


def test_denoising_needs_no_level(tmp_path) -> None:
    x = torch.from_numpy(photo(size=(64, 96))).permute(2, 0, 1)[None] / 255
    write_image(tmp_path / "a.png", degrade(x, make_operator("denoise"), 0.05))
    told = succeed("denoise", tmp_path / "a.png").stdout
    record = sidecar(tmp_path / "a.genprior.png")
    assert abs(record["noise"] - 0.05) < 0.005 and record["noise_estimated"]
    assert f"noise {record['noise']:.4g} (estimated)" in told
    succeed("denoise", tmp_path / "a.png", "--noise", record["noise"], "-o", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.genprior.png").read_bytes()
