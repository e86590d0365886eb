"""Priors that are computed in closed form, from the command line."""

import numpy as np
import pytest
import torch
from shell import refused, save_photo, succeed

from genprior.api.restoration import load_prior
from genprior.io.images import read_image
from genprior.priors.pca import PCA
from genprior.priors.texture import Texture
from genprior.training.crops import Crops


@pytest.fixture
def folder(tmp_path):
    for k in range(3):
        save_photo(tmp_path / f"{k}.png", start=50 * k)
    return tmp_path


def test_pca_of_crops(folder):
    succeed("train", "pca", folder, "-o", folder / "run", "--crop", 8, "--no-turn",
            "--set", "components=5", "--set", "images=40", "--seed", 3)
    loaded = load_prior(folder / "run")
    images = Crops([folder], 8, seed=3, turn=False).batch(0, 40)
    expected = PCA.from_images(images, 5, torch.Generator().manual_seed(3))
    assert loaded.floor == expected.floor
    for key, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    rows = images.flatten(1).double().numpy()
    values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1]
    assert np.allclose(loaded.variances, values[:5], rtol=1e-3)


def test_texture_of_an_image(folder):
    succeed("train", "texture", folder / "0.png", "-o", folder / "run", "--set", "floor=0.05")
    loaded = load_prior(folder / "run")
    expected = Texture.from_exemplar(read_image(folder / "0.png").pixels, floor=0.05)
    x = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.denoise(x, 0.1), expected.denoise(x, 0.1))


def test_texture_of_a_folder(folder):
    succeed("train", "texture", folder, "-o", folder / "run", "--crop", 12, "--seed", 3,
            "--set", "images=30", "--set", "margin=8")
    loaded = load_prior(folder / "run")
    expected = Texture.from_images(Crops([folder], 12, seed=3).batch(0, 30), margin=8)
    assert loaded.config == expected.config and loaded.floor > 0
    x = torch.rand(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.denoise(x, 0.1), expected.denoise(x, 0.1))


def test_errors(folder):
    _, message = refused("train", "texture", folder / "0.png", "-o", folder / "run",
                         "--set", "images=3")
    assert "--set images=3: choose one of margin, floor" in message
    _, message = refused("train", "pca", folder, "-o", folder / "run", "--steps", 3, "--resume")
    assert "pca is computed, not trained: leave --steps and --resume out" in message
    _, message = refused("train", "texture", folder, "-o", folder / "run", "--lr", 0.1)
    assert "texture is computed, not trained: leave --lr out" in message
    _, message = refused("train", "pca", folder, "-o", folder / "run", "--set", "size=3")
    assert "--set size=3: choose one of components, images, channels" in message
