"""Priors estimated from one image, and textures drawn from them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from genprior import degrade, estimate_prior, restore, sample
from genprior.api.estimated_priors import draw_texture, read_exemplar
from genprior.api.factory import make_solver
from genprior.core.errors import ImageError, SettingError
from genprior.io.images import ImageFile, write_image
from genprior.operators.inpainting import Inpainting

GRASS = torch.from_numpy(data.grass()[:48, :64] / 255.0)[None, None]


def test_the_estimate_does_not_depend_on_the_type_of_the_image() -> None:
    array = data.grass()[:48, :64]
    expected = estimate_prior("texture", GRASS)
    given = estimate_prior("texture", array)
    torch.testing.assert_close(given.texton, expected.texton.float())
    assert given.mean_colour.item() == pytest.approx(array.mean() / 255, abs=1e-6)
    assert estimate_prior("texture", array, floor=0.0, margin=0).floor == 0


def test_the_transparent_part_of_an_exemplar_does_not_count(tmp_path: Path) -> None:
    alpha = torch.ones(1, 1, 48, 64)
    alpha[..., :20] = 0
    pixels = torch.where(alpha > 0, GRASS, 1.0).float()
    write_image(tmp_path / "a.png", ImageFile(pixels, alpha))
    prior, picture = read_exemplar("texture", tmp_path / "a.png")
    assert picture.alpha is None
    expected = estimate_prior("texture", GRASS, alpha)
    torch.testing.assert_close(prior.texton.double(), expected.texton, atol=1e-6, rtol=0)
    write_image(tmp_path / "b.png", ImageFile(pixels, torch.ones_like(alpha)))
    opaque, _ = read_exemplar("texture", tmp_path / "b.png")
    torch.testing.assert_close(opaque.texton, estimate_prior("texture", pixels).texton)


@pytest.mark.parametrize("size", [(20, 30), (150, 170)])
def test_adsn_has_the_covariance_of_the_prior(size: tuple[int, int]) -> None:
    prior = estimate_prior("texture", GRASS, margin=None)
    t = prior.texton[0]
    lags = {(0, 0): (t * t).sum(), (0, 1): (t[:, 1:] * t[:, :-1]).sum()}
    lags[1, 0] = (t[1:] * t[:-1]).sum()
    draws = torch.cat([prior.synthesise(noise, torch.Size((40, 1, *size))) for noise in [
        torch.randn(40, 1, *prior.torus(torch.Size((1, 1, *size))),
                    generator=torch.Generator().manual_seed(0), dtype=torch.float64)]])
    r = draws - prior.mean_colour
    for (down, right), expected in lags.items():
        a, b = r[..., down:, right:], r[..., : size[0] - down, : size[1] - right]
        products = (a * b).mean((1, 2, 3))
        assert abs(products.mean() - expected) < 4 * products.std() / 40**0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_has_the_channels_of_the_exemplar(channels: int) -> None:
    prior = estimate_prior("texture", GRASS.expand(-1, channels, -1, -1))
    assert sample(prior, count=2, size=(20, 30)).shape == (2, channels, 20, 30)


def test_a_texture_depends_on_its_seed_only() -> None:
    prior = estimate_prior("texture", GRASS, margin=None)
    state = torch.get_rng_state()
    first, again, other = (draw_texture(prior, (70, 50), "rpn", seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (1, 1, 70, 50) and 0 <= first.min() and first.max() <= 1
    assert torch.equal(torch.get_rng_state(), state)


def test_rpn_keeps_the_modulus_of_a_periodic_texture() -> None:
    prior = estimate_prior("texture", 0.1 * GRASS + 0.45, margin=0)
    drawn = draw_texture(prior, GRASS.shape[-2:], "rpn") - prior.mean_colour
    modulus = torch.fft.fft2(drawn).abs()
    expected = torch.fft.fft2(prior.texton).abs() * GRASS.numel() ** 0.5
    torch.testing.assert_close(modulus[0].sort().values, expected.sort().values)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_hole_keeps_its_contrast_if_conditioned_on_its_border(noise: float) -> None:
    """In colour, all known pixels determine the white field: the hole becomes the mean."""
    crops = [data.gravel()[k : k + 64, :64] for k in (0, 100, 200)]
    photo = torch.from_numpy(np.stack(crops) / 255.0).float()[None]
    keep = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    keep[..., 24:40, 24:40] = False
    y = degrade(photo, Inpainting(keep), noise)
    prior = estimate_prior("texture", y, keep)
    inside = (~keep).expand_as(y)
    spread = {}
    for border in (0, 3):
        solver = make_solver("gaussian", border=border)
        x = restore(y, Inpainting(keep), prior, solver, noise_std=noise).image
        assert noise or (x[~inside] == y[~inside]).all()
        spread[border] = x[inside].std() / y[~inside].std()
    assert spread[0] < 0.4 and 0.6 < spread[3] < 1.4


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="'ddpm' is not estimated from an image: choose text"):
        estimate_prior("ddpm", GRASS)
    with pytest.raises(ValueError, match="must be one image .*got shape .2, 1, 48, 64."):
        estimate_prior("texture", GRASS.expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match="keep must have the size of the exemplar .48, 64., got"):
        estimate_prior("texture", GRASS, torch.ones(1, 1, 64, 48))
    write_image(tmp_path / "clear.png", ImageFile(GRASS.float(), torch.zeros(1, 1, 48, 64)))
    with pytest.raises(ImageError, match="clear.png: the exemplar has no known pixel"):
        read_exemplar("texture", tmp_path / "clear.png")
    with pytest.raises(ValueError, match="method must be 'adsn' or 'rpn', got 'dsn'"):
        draw_texture(estimate_prior("texture", np.asarray(GRASS[0, 0])), (8, 8), "dsn")
