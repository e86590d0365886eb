import sys

import numpy as np
import pytest
import torch
from shell import photo

from genprior.api.restoration import restore
from genprior.core.errors import SettingError
from genprior.core.metrics import psnr
from genprior.inverse.baselines.opencv_inpainting import NavierStokes, Telea
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting

METHODS = pytest.mark.parametrize("method", [Telea(), NavierStokes()])


def picture(size=40):
    return torch.from_numpy(photo(size=(size, size)) / 255).float().permute(2, 0, 1)[None]


def keep(size=40):
    known = torch.ones(1, 1, size, size)
    known[..., 10:16, 12:20] = known[..., 30:33, 5:30] = 0
    return known


@METHODS
def test_holes_are_those_of_opencv_and_known_pixels_stay(method):
    cv2 = pytest.importorskip("cv2")
    x, known = picture(), keep()
    y = Inpainting(known).A(x)
    result = restore(y, Inpainting(known), None, method).image
    hole = (known[0, 0] == 0).numpy()
    assert torch.equal(result * known, y)
    for channel in range(3):
        expected = cv2.inpaint(
            255 * y[0, channel].numpy(), hole.astype(np.uint8), 3, getattr(cv2, method.flag)
        )
        assert np.abs(255 * result[0, channel].numpy() - expected)[hole].max() < 1e-3
    # with values of another scale, Telea's gradients are noise
    assert psnr(result, x).item() > psnr(y, x).item() + 10


@METHODS
def test_a_missing_package_is_named(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SettingError, match="need OpenCV: pip install opencv-python-headless"):
        restore(keep() * picture(), Inpainting(keep()), None, method)
    with pytest.raises(ValueError, match="is not made for a measurement by Denoising"):
        restore(picture(), Denoising(), None, method, 0.1)
