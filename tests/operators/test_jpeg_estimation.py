import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from genprior.operators.jpeg_estimation import estimate_coding, likelihood_ratio
from genprior.operators.jpeg_tables import standard_tables


def clean() -> np.ndarray:
    return data.astronaut()[:160, 160:352]


def decoded(quality: int, sampling: str = "4:2:0", grey: bool = False) -> Tensor:
    file = io.BytesIO()
    image = Image.fromarray(clean())
    image = image.convert("L") if grey else image
    image.save(file, "JPEG", quality=quality, subsampling=sampling)
    levels = np.atleast_3d(np.asarray(Image.open(io.BytesIO(file.getvalue()))))
    return torch.from_numpy(levels.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("quality", [10, 35, 60, 85])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_quality_and_sampling_are_found(quality: int, sampling: str) -> None:
    fit = estimate_coding(decoded(quality, sampling))
    assert (fit.quality, fit.sampling, fit.offset) == (quality, sampling, (0, 0))


def test_grey() -> None:
    assert estimate_coding(decoded(30, grey=True)).quality == 30


@pytest.mark.parametrize("offset", [(3, 5), (8, 0), (7, 15)])
def test_the_grid_of_a_cropped_image_is_found(offset: tuple[int, int]) -> None:
    fit = estimate_coding(decoded(30)[..., offset[0] :, offset[1] :])
    assert (fit.quality, fit.sampling, fit.offset) == (30, "4:2:0", offset)


def test_an_image_without_compression_has_no_trace() -> None:
    x = torch.from_numpy(clean().copy()).permute(2, 0, 1)[None].float() / 255
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    for image in (x, noise, torch.full_like(x, 0.5), x[..., :5, :5]):
        assert estimate_coding(image) is None


def test_a_quality_that_is_known_is_taken() -> None:
    fit = estimate_coding(decoded(30), quality=40, sampling="4:4:4")
    assert (fit.quality, fit.sampling) == (40, "4:4:4")


def test_multiples_are_more_likely_than_other_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    table = standard_tables(30)[0]
    k = torch.randint(-5, 6, (200, 8, 8), generator=generator)
    error = 0.3 * torch.randn(k.shape, generator=generator)
    assert likelihood_ratio(k * table + error, table) > 1
    assert likelihood_ratio(k * table * torch.rand(k.shape, generator=generator), table) < 0
    assert likelihood_ratio(error, table) == 0, "coefficients near 0 tell nothing"
