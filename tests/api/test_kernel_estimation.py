import warnings

import numpy as np
import pytest
import torch
from shell import refused, sidecar, succeed
from skimage import data
from small import Shrink

from genprior import degrade, estimate_kernel, make_operator, restore
from genprior.core.errors import RestorationWarning, SettingError
from genprior.io.images import read_image, write_image
from genprior.operators.kernels import disc_kernel, gaussian_kernel, motion_kernel

NOISE = 0.005
SIGMA = torch.tensor([NOISE])


def photo(height=161, width=150):
    """A crop of a photograph, (1, 3, H, W)."""
    crop = data.astronaut()[20 : 20 + height, 150 : 150 + width].copy()
    return torch.from_numpy(crop).permute(2, 0, 1)[None] / 255


def blurred(kernel, **size):
    return degrade(photo(**size), make_operator("deblur", kernel=kernel), NOISE)


@pytest.mark.parametrize(("kernel", "kind"), [
    (motion_kernel(9, 30), "motion"), (disc_kernel(3.5), "disc"),
    (gaussian_kernel(1.5), "gaussian"),
])
def test_the_blur_of_a_photo_is_found(kernel, kind):
    y = blurred(kernel)
    found = estimate_kernel(y, kind, 15, NOISE)
    k = found.kernel[0, 0].double()
    top, left = ((a - b) // 2 for a, b in zip(k.shape, kernel.shape, strict=True))
    if min(top, left) < 0:
        k, kernel, top, left = kernel, k, -top, -left
    inner = k[top : top + kernel.shape[0], left : left + kernel.shape[1]]
    cosine = (inner * kernel).sum() / (k.norm() * kernel.norm())
    assert cosine > 0.97
    assert found.kernel.sum().item() == pytest.approx(1, abs=1e-6)
    assert {"motion": "motion of", "disc": "a disc", "gaussian": "a Gaussian"}[kind] in (
        found.found[0]
    )


def test_any_kind_chooses_the_family_and_images_are_independent():
    y = torch.cat([blurred(motion_kernel(9, 0)), blurred(motion_kernel(9, 0)).flip(-2)])
    both = estimate_kernel(y, size=13, noise_std=NOISE)
    assert all(text.startswith("motion of") for text in both.found)
    alone = estimate_kernel(y[1:], size=13, noise_std=NOISE)
    assert alone.found[0] == both.found[1]
    assert torch.equal(alone.log_likelihood, both.log_likelihood[1:])
    assert make_operator("deblur", kernel=both.kernel).A(photo().expand(2, -1, -1, -1)).isfinite(
    ).all()


def test_grey_float64_and_numpy_images_give_the_same_kernel():
    grey = blurred(motion_kernel(9, 60)).mean(dim=1, keepdim=True)
    expected = estimate_kernel(grey, "motion", 13).kernel
    assert torch.equal(estimate_kernel(grey.double(), "motion", 13).kernel, expected)
    array = grey[0].permute(1, 2, 0).numpy()
    assert torch.equal(estimate_kernel(array, "motion", 13).kernel, expected)


def test_a_free_kernel_is_centred_and_fits_the_size():
    found = estimate_kernel(blurred(motion_kernel(7, 45)), "free", 10, NOISE)
    assert all(side % 2 == 1 and side <= 9 for side in found.kernel.shape[-2:])
    assert found.found == (f"a kernel of {found.kernel.shape[-1]}x{found.kernel.shape[-2]} px",)


def test_large_images_are_represented_by_the_window_with_the_most_structure():
    y = blurred(motion_kernel(9, 30))
    large = torch.full((1, 3, 500, 800), 0.4)
    large[..., 260 : 260 + y.shape[-2], 500 : 500 + y.shape[-1]] = y
    assert estimate_kernel(large, "motion", 13, NOISE).found[0].startswith("motion of")


@pytest.mark.parametrize(("image", "options", "message"), [
    (torch.full((1, 3, 99, 99), 0.5), {}, "no structure"),
    (torch.rand(1, 3, 40, 64), {"size": 41}, "choose a size of at most 13"),
    (torch.rand(1, 3, 8, 8), {}, "give the kernel"),
    (torch.rand(1, 3, 64, 64), {"size": 2}, "a whole number of pixels >= 3, got 2"),
    (torch.rand(1, 3, 64, 64), {"kind": "box"}, "choose one of any, gaussian"),
    (torch.rand(1, 3, 64, 64), {"noise_std": -1.0}, "noise_std must be a number >= 0"),
])
def test_bad_input_is_refused_in_one_line(image, options, message):
    with pytest.raises(SettingError, match=message) as caught:
        estimate_kernel(image, **options)
    assert "\n" not in str(caught.value)


def test_restore_warns_of_a_kernel_that_is_10_degrees_off_and_not_of_the_right_one():
    y = blurred(motion_kernel(11, 30))

    def restored(kernel):
        return restore(y, make_operator("deblur", kernel=kernel), Shrink(), "hqs", NOISE, steps=2)

    with pytest.warns(RestorationWarning, match="does not fit the spectrum of the image"):
        wrong = restored(motion_kernel(11, 40))
    assert wrong.misfit.item() < 1.5  # which does not show it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert restored(motion_kernel(11, 30)).warnings == ()


def test_restore_warns_of_the_wrong_family():
    y = blurred(motion_kernel(11, 30))
    operator = make_operator("deblur", kernel=gaussian_kernel(0.8))
    with pytest.warns(RestorationWarning, match=r"motion of 1[01]\.\d px .* is more likely"):
        restore(y, operator, Shrink(), "hqs", NOISE, steps=2)


def test_files_with_an_estimated_motion(tmp_path):
    file, output = tmp_path / "a.png", tmp_path / "b.png"
    write_image(file, blurred(motion_kernel(9, 30), height=121, width=110))
    line = succeed("deblur", file, "-o", output, "--motion", "auto", "--noise", NOISE,
                   "--steps", 1).output
    record = sidecar(output)
    assert record["blur_found"].startswith("motion of")
    assert record["blur_found"] in line
    assert record["operator"]["motion"] == "auto"
    kernel = read_image(tmp_path / "b.kernel.png").pixels
    assert kernel.max() == 1
    np.testing.assert_array_equal([n % 2 for n in kernel.shape[-2:]], 1)
    again = tmp_path / "c.png"
    succeed("deblur", file, "-o", again, "--kernel", tmp_path / "b.kernel.png", "--noise", NOISE,
            "--steps", 1)
    difference = read_image(again).pixels - read_image(output).pixels
    assert difference.abs().mean() < 0.01  # the kernel was rounded to 8 bits


def test_files_that_cannot_be_estimated_are_refused(tmp_path):
    file = tmp_path / "a.png"
    write_image(file, photo(60, 60))
    code, message = refused("deblur", file, "--kernel", "auto=61")
    assert code == 3
    assert "choose a size of at most 20" in message
    assert refused("deblur", file, "--kernel", "auto=no")[0] == 2
    assert "in place of auto" in refused("deblur", file, "--kernel", "auto", "--degrade")[1]
    assert "exactly one" in refused("deblur", file, "--kernel", "auto", "--motion", "auto")[1]
