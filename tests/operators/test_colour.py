"""Luminance and colour filter arrays, against Pillow, indexing and exact posteriors."""

import numpy as np
import pytest
import torch
from contracts import check_operator
from PIL import Image
from posteriors import EXACT, exact
from torch import Tensor

from genprior import degrade, make_operator, restore
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.inverse.tikhonov import smooth_start
from genprior.operators.base import Operator
from genprior.operators.colour import PATTERNS, Luminance, Mosaic
from genprior.priors.texture import Texture

BOTH = pytest.mark.parametrize("op", [Luminance(), Mosaic("GBRG")], ids=["grey", "mosaic"])


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("op", [Luminance(), Luminance((1, 0, 2)), *map(Mosaic, PATTERNS)])
@pytest.mark.parametrize("size", [(4, 5), (1, 3)])
def test_laws(op: Operator, size: tuple[int, int]) -> None:
    check_operator(op, rand(2, 3, *size))


def test_luminance_is_that_of_pillow() -> None:
    pixels = (rand(9, 7, 3) * 255).byte().numpy()
    theirs = np.asarray(Image.fromarray(pixels).convert("L"))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    assert np.abs(Luminance().A(x)[0, 0].numpy() * 255 - theirs).max() <= 0.51


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pixel_of_a_mosaic_is_that_of_its_colour(pattern: str) -> None:
    x = rand(1, 3, 5, 6)
    y = Mosaic(pattern).A(x)
    for row in range(5):
        for column in range(6):
            colour = "RGB".index(pattern[2 * (row % 2) + column % 2])
            assert y[0, 0, row, column] == x[0, colour, row, column]


@BOTH
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_the_posterior_of_a_gaussian_prior_is_exact(op: Operator, sigma: float) -> None:
    prior = Texture.from_exemplar(rand(1, 3, 6, 6, seed=3), margin=0)
    shape = torch.Size((1, 3, 6, 6))
    y = op.A(rand(*shape, seed=5))
    K, offset, _, _ = exact(prior, op, sigma, shape)
    mean = GaussianPosterior("mean", **EXACT)(y, op, prior, sigma, None)
    torch.testing.assert_close(mean.flatten(), offset + K @ y.flatten(), rtol=0, atol=1e-6)


@BOTH
def test_singular_values_and_vectors(op: Operator) -> None:
    x = rand(1, 3, 4, 6)
    svd = op.singular(x.shape, x)
    coordinates = svd.image(x)
    torch.testing.assert_close(svd.values * coordinates, svd.data(op.A(x)))
    torch.testing.assert_close(svd.image(svd.back(coordinates)), coordinates)


def test_solvers_start_without_colours() -> None:
    y = rand(2, 1, 5, 6)
    start = smooth_start(y, Luminance((1, 1, 2)))
    torch.testing.assert_close(start, (y / 4).expand(-1, 3, -1, -1))


def test_colour_files_are_measured_and_grey_ones_are_measurements() -> None:
    x = rand(1, 3, 4, 6)
    for op in (Luminance(), Mosaic()):
        assert torch.equal(op.from_pixels(x), op.A(x))
        assert torch.equal(op.from_pixels(x[:, :1]), x[:, :1])


def test_arrays_of_numpy_become_colour_images(weights: object) -> None:
    x = (rand(12, 16, 3).numpy() * 255).astype(np.uint8)
    for task in ("colorize", "demosaic"):
        op = make_operator(task)
        y = degrade(x, op)
        assert y.shape == (12, 16, 1) and y.dtype == np.uint8
        result = restore(y[..., 0], op, str(weights), "hqs", steps=2)
        assert result.image.shape == (12, 16, 3) and result.image.dtype == np.uint8


def test_one_colorized_image_is_a_sample_and_keeps_its_luminance(weights: object) -> None:
    x, op = rand(1, 3, 12, 16).float(), Luminance()
    first, second = (
        restore(op.A(x), op, str(weights), steps=3, seed=seed) for seed in (0, 1)
    )
    assert first.solver == second.solver == "diffpir"
    assert not torch.allclose(first.image, second.image, atol=1e-3)
    torch.testing.assert_close(op.A(first.image), op.A(x))
    mosaic = Mosaic()
    colours = restore(mosaic.A(x), mosaic, str(weights), steps=2)
    assert colours.solver == "hqs" and torch.equal(mosaic.A(colours.image), mosaic.A(x))


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown pattern 'RGB': choose one of RGGB"):
        Mosaic("RGB")
    for weights in ((1, 2), (0, 0, 0), (1, -1, 1), (1, 1, float("nan"))):
        with pytest.raises(ValueError, match="weights must be three numbers >= 0"):
            Luminance(weights)
    with pytest.raises(ValueError, match="colorize measures colour images .* give a colour"):
        Luminance().A(rand(1, 1, 4, 4))
    with pytest.raises(ValueError, match="demosaic takes images of one channel"):
        Mosaic().image_shape(torch.Size((1, 3, 4, 4)))
