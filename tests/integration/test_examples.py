import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image
from repository import ROOT

from genprior import load_prior, sample

EXAMPLES = ROOT / "examples"


def load(name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_photo_is_the_one_its_script_makes(tmp_path):
    missing = load("make_photo").main(tmp_path)
    assert missing == pytest.approx(0.073, abs=5e-4)
    for name in ("photo.png", "hole.png"):
        made, kept = (np.asarray(Image.open(p / name)) for p in (tmp_path, EXAMPLES))
        assert np.array_equal(made, kept)


def test_restoring_beats_the_smooth_fill_even_in_few_steps():
    ours, biharmonic = load("restore_photo").main(size=48, steps=8)
    assert ours > biharmonic


def test_pictures_of_the_lecture():
    lecture = load("lecture")
    prior, side = load_prior("glow:digits"), 29  # images are a pixel apart
    x = sample(prior, 10, seed=1, size=(28, 28))
    way = lecture.images(prior, x, rows=2, count=3)[:1]
    for row, column, image in ((0, 0, 0), (1, 0, 1), (0, 2, 2), (1, 2, 3)):
        found = way[:, 1 + side * row :, 1 + side * column :][:, :28, :28]
        torch.testing.assert_close(found, x[image], rtol=0, atol=1e-3)
    drawn = lecture.temperatures(prior, seed=0, count=3)[0, 1:, 1:]
    tiles = drawn.unfold(0, 28, side).unfold(1, 28, side)
    cold, warm = tiles[0], tiles[-1]
    assert torch.equal(cold[0], cold[2]) and (warm[0] - warm[2]).abs().mean() > 0.02


def test_gans_of_the_lecture_are_drawn_after_the_epochs_that_are_named():
    lecture = load("lecture")
    x, z = sample("gan:digits", 100, (28, 28), seed=0), torch.randn(4, 32)
    for settings in lecture.GANS.values():
        both = lecture._train_dense_gan(x, z, *settings, epochs=(1, 2))
        (second,) = lecture._train_dense_gan(x, z, *settings, epochs=(2,))
        assert torch.equal(both[1], second) and not torch.equal(both[0], second)
