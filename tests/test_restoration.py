import numpy as np
import pytest
from skimage import data
from small import Shrink

import genprior
from genprior import restoration

SETTINGS = {"prior": Shrink(), "solver": "hqs", "steps": 2}


def test_axes_and_integers_as_in_scikit_image() -> None:
    photo = data.astronaut()[:16, :20]
    mask = np.zeros(photo.shape[:2], bool)
    mask[4:8, 5:9] = True
    last = restoration.inpaint(photo, mask, channel_axis=-1, **SETTINGS)
    assert last.shape == photo.shape and np.issubdtype(last.dtype, np.floating)
    np.testing.assert_allclose(last[~mask], photo[~mask] / 255, atol=1e-6)
    first = restoration.inpaint(np.moveaxis(photo, -1, 0), mask, channel_axis=0, **SETTINGS)
    np.testing.assert_array_equal(np.moveaxis(first, 0, -1), last)
    operator = genprior.make_operator("inpaint", mask=mask)
    same = genprior.restore((photo / 255).astype(np.float32), operator, **SETTINGS).image
    np.testing.assert_allclose(last, same, atol=1e-6)


def test_each_function_keeps_a_grey_image_grey() -> None:
    photo = data.camera()[:16, :20] / 255
    assert restoration.denoise(photo, 0.1, **SETTINGS).shape == (16, 20)
    psf = np.ones((3, 3))
    for boundary in ("valid", "reflect"):
        assert restoration.deblur(photo, psf, boundary=boundary, **SETTINGS).shape == (16, 20)
    assert restoration.superres(photo, 2, **SETTINGS).shape == (32, 40)


@pytest.mark.parametrize("shape, axis, message", [
    ((4, 5, 3), None, "colours need channel_axis=-1"),
    ((4, 5), -1, "got shape .4, 5. and channel_axis=-1"),
    ((4, 5, 3), 3, "channel_axis must be from -3 to 2, got 3"),
    ((4, 5, 2), -1, "1 or 3 channels"),
])
def test_errors(shape: tuple[int, ...], axis: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        restoration.denoise(np.zeros(shape), 0.1, channel_axis=axis, **SETTINGS)
