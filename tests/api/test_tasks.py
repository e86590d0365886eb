"""Operators that are built for image files from the settings of a task."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import as_picture
from PIL import Image

from genprior.api.tasks import blurring, denoising, enlarging, foreign, inpainting
from genprior.core.errors import SettingError
from genprior.io.images import ImageError, ImageFile
from genprior.operators.kernels import gaussian_kernel, motion_kernel
from genprior.operators.masks import box_hole, random_keep

SIZE = (6, 9)


def picture(seed: int = 0, channels: int = 3) -> ImageFile:
    rng = np.random.default_rng(seed)
    return as_picture(rng.integers(0, 256, (*SIZE, channels), dtype=np.uint8))


def hole(operator: torch.nn.Module) -> torch.Tensor:
    return operator.mask_unmeasured(torch.ones(1, 1, *SIZE)) == 0


def test_masks_follow_their_settings(tmp_path: Path) -> None:
    white = np.zeros(SIZE, np.uint8)
    white[1:3, 2:7] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    wanted = {
        ("random", 0.3): ~random_keep((1, 1, *SIZE), 0.3, 5),
        ("box", (2, 3)): box_hole((1, 1, *SIZE), 2, 3),
        ("file", tmp_path / "mask.png"): torch.from_numpy(white > 0)[None, None],
    }
    for mask, expected in wanted.items():
        assert torch.equal(hole(inpainting(mask, seed=5)([picture()], False)), expected)
        assert torch.equal(hole(inpainting(mask, True, 5)([picture()], False)), ~expected)


def test_alpha_masks_differ_by_image_and_random_masks_do_not() -> None:
    pictures = [picture(seed, channels=4) for seed in (1, 2)]
    operator = inpainting(("alpha", None))(pictures, False)
    for i, one in enumerate(pictures):
        assert torch.equal(hole(operator.select([i])), one.alpha < 0.5)
    operator = inpainting(("random", 0.5), seed=1)(pictures, False)
    assert torch.equal(hole(operator.select([0])), hole(operator.select([1])))


def test_blurs(tmp_path: Path) -> None:
    x = torch.zeros(1, 1, 21, 21)
    x[..., 10, 10] = 1
    kernel = np.array([[0, 255, 0], [0, 255, 255], [0, 0, 0]], np.uint8)
    Image.fromarray(kernel).save(tmp_path / "kernel.png")
    for given, expected in (
        ({"gaussian": 0.8}, gaussian_kernel(0.8)),
        ({"motion": (5, 30)}, motion_kernel(5, 30)),
        ({"kernel": tmp_path / "kernel.png"}, torch.from_numpy(kernel / 765)),
    ):
        y = blurring(**given, boundary="circular")([], False).A(x)[0, 0]
        height, width = expected.shape
        top, left = 10 - height // 2, 10 - width // 2
        seen = y[top : top + height, left : left + width]
        assert torch.allclose(seen.double(), expected.double(), atol=1e-6)


@pytest.mark.parametrize("clean, size", [(True, SIZE), (False, (18, 27))])
def test_the_size_of_a_super_resolved_image(
    clean: bool, size: tuple[int, int]
) -> None:
    operator = enlarging(3)([picture()], clean)
    small = (2, 3) if clean else SIZE
    assert operator.image_shape(torch.Size((1, 3, *small))) == (1, 3, *size)


def test_denoising_is_the_identity() -> None:
    assert denoising()([picture()], False).is_identity


def test_a_physics_of_deepinv_is_the_same_for_all_images_of_a_size() -> None:
    build = foreign("CompressedSensing", {"m": 20}, seed=3)
    x = picture().pixels
    y = build([picture()], True).A(x)
    assert y.shape == (1, 20) and torch.equal(build([picture()], True).A(x), y)
    assert not torch.equal(foreign("CompressedSensing", {"m": 20}, 4)([picture()], True).A(x), y)
    assert build([picture()], True).image_shape(y.shape) == x.shape


@pytest.mark.parametrize("name, settings, message", [
    ("Sharpening", {}, "no physics 'Sharpening': choose one of .*CompressedSensing"),
    ("ComposedLinearPhysics", {}, "no physics"),
    ("CompressedSensing", {"m": 20, "n": 3}, "CompressedSensing has no argument 'n', it has chan"),
    ("CompressedSensing", {}, "CompressedSensing does not work with {} on images"),
    ("CompressedSensing", {"m": -1}, "CompressedSensing does not work with"),
    ("CompressedSensing", {"m": 20, "kwargs": 5}, "has no argument 'kwargs'"),
    ("MRI", {}, "MRI does not work with"),
    ("Downsampling", {"factor": 2, "filter": "nonsense"}, "Downsampling does not work with"),
    ("Pansharpen", {}, "returns several tensors, not one"),
])
def test_invalid_physics_are_refused(name: str, settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        foreign(name, settings)([picture()], True)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no alpha channel .* give --mask FILE"):
        inpainting(("alpha", None))([picture()], False)
    clear = picture(channels=4)
    clear.alpha.fill_(1)
    with pytest.raises(ImageError, match="nothing is missing in the mask alpha: .*transparent"):
        inpainting(("alpha", None))([clear], False)
    with pytest.raises(ImageError, match="every pixel is missing in the mask alpha"):
        inpainting(("alpha", None), invert=True)([clear], False)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "k.png")
    with pytest.raises(ImageError, match="k.png: a blur kernel must not sum to 0"):
        blurring(kernel=tmp_path / "k.png")
    np.save(tmp_path / "picture.npy", np.ones((1025, 1024), np.uint8))
    with pytest.raises(ImageError, match="picture.npy.* 1024 x 1025 pixels, more than 1048576"):
        blurring(kernel=tmp_path / "picture.npy")


def test_holes_grow() -> None:
    operator = inpainting(("box", (2, 3)), grow=1)([picture()], True)
    expected = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    expected[..., 2:4, 2:7] = expected[..., 1:5, 3:6] = True  # a disc of radius 1 is a cross
    assert torch.equal(hole(operator), expected)
