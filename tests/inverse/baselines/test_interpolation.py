import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from genprior.api.restoration import restore
from genprior.inverse.baselines.interpolation import Bicubic, Lanczos
from genprior.operators.denoising import Denoising
from genprior.operators.superres import SuperResolution


def small(size: tuple[int, int] = (9, 11)) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("kernel", ["bicubic", "box"])
def test_bicubic_on_the_half_pixel_grid_is_torchs(factor, kernel):
    y = small()
    result = restore(y, SuperResolution(factor, kernel), None, Bicubic()).image
    expected = F.interpolate(y, scale_factor=factor, mode="bicubic")
    assert torch.allclose(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
def test_bicubic_on_the_grid_of_decimation_is_torchs_grid_sample(factor):
    y = small()
    result = restore(y, SuperResolution(factor, "gaussian"), None, Bicubic()).image
    axes = [torch.arange(n * factor) / factor / (n - 1) * 2 - 1 for n in y.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)
    expected = F.grid_sample(y, grid.expand(2, -1, -1, -1), mode="bicubic",
                             padding_mode="border", align_corners=True)
    assert torch.allclose(result, expected, rtol=0, atol=1e-5)


def test_lanczos_is_pillows_away_from_the_border():
    y = small((20, 24))
    result = restore(y, SuperResolution(3, "box"), None, Lanczos()).image[0, 0].numpy()
    resize = Image.fromarray(y[0, 0].numpy()).resize
    expected = np.asarray(resize((72, 60), Image.Resampling.LANCZOS))
    assert np.abs(result - expected)[9:-9, 9:-9].max() < 1e-5


def test_sizes_that_the_factor_does_not_divide():
    operator = SuperResolution(4, image_size=(33, 42))
    assert restore(small(), operator, None, Bicubic()).image.shape == (2, 3, 33, 42)


def test_another_operator_is_refused():
    with pytest.raises(ValueError, match="Lanczos is not made for a measurement by Denoising"):
        restore(small(), Denoising(), None, Lanczos())
