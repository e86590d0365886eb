"""Random crops: reproducible, from images that are large enough and not damaged."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genprior.core.errors import ImageError
from genprior.training.crops import Crops


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "inner").mkdir()
    for name, size in (("a.png", (40, 30)), ("inner/b.png", (24, 50)), ("small.png", (9, 60))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_range(photos: Path, channels: int) -> None:
    batch = Crops([photos], 16, channels).batch(0, 6)
    assert batch.shape == (6, channels, 16, 16)
    assert batch.dtype == torch.float32
    assert 0 <= batch.min() < 0.2 and 0.8 < batch.max() <= 1


def test_images_smaller_than_a_crop_are_left_out(photos: Path) -> None:
    assert len(Crops([photos], 16).images) == 2
    assert len(Crops([photos], 9).images) == 3


def test_a_batch_is_a_function_of_seed_and_number(photos: Path) -> None:
    crops = Crops([photos], 16, seed=3)
    later = crops.batch(5, 4)
    assert torch.equal(Crops([photos], 16, seed=3).batch(5, 4), later)
    assert not torch.equal(crops.batch(6, 4), later)
    assert not torch.equal(Crops([photos], 16, seed=4).batch(5, 4), later)


def test_native_crops_are_pixels_of_the_image(tmp_path: Path) -> None:
    y, x = np.mgrid[:32, :32]
    photo = np.stack([x, y, 0 * x], 2).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    crops = (Crops([tmp_path], 32).batch(0, 20) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    turned = [np.rot90(photo, k) for k in range(4)]
    symmetries = [image.tobytes() for t in turned for image in (t, t[:, ::-1])]
    drawn = {symmetries.index(crop.tobytes()) for crop in crops}
    assert len(drawn) > 4


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_grey_is_not_saturated(tmp_path: Path, channels: int) -> None:
    grey = (np.arange(1024).reshape(32, 32) * 64).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    crop = Crops([tmp_path], 32, channels).batch(0, 1)[0]
    assert crop.shape == (channels, 32, 32)
    levels = (crop * 255).round().flatten(1).sort().values
    expected = torch.from_numpy((grey / 65535 * 255).round()).flatten().sort().values
    assert (levels == expected).all()


@pytest.mark.parametrize("held", [0, 2**30])
@pytest.mark.parametrize("name", ["cut.jpg", "cut.png"])
def test_damaged_images_are_left_out(tmp_path: Path, monkeypatch, held: int, name: str) -> None:
    monkeypatch.setattr("genprior.io.datasets.HELD_PIXELS", held)
    levels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "whole.png")
    Image.fromarray(levels).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])  # its header stays valid
    told: list[str] = []
    crops = Crops([tmp_path], 16, warn=told.append)
    batch = crops.batch(0, 8)
    again = torch.cat([crops.batch(0, 8, slice(0, 3)), crops.batch(0, 8, slice(3, 8))])
    assert torch.equal(batch, again)
    assert len(told) == 1 and f"{name}: damaged or cut short" in told[0]
    (tmp_path / "whole.png").unlink()
    warned = nullcontext() if held else pytest.warns(UserWarning, match="left out")
    with warned, pytest.raises(ImageError, match=name):
        Crops([tmp_path], 16).batch(0, 2)
    (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(ImageError, match="not an image"):
        Crops([tmp_path], 16)


def test_errors(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ValueError, match="none of the 3 images in .* is at least 51 pixels"):
        Crops([photos], 51)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ValueError, match="no image in .*empty"):
        Crops([empty], 16)
    with pytest.raises(ValueError, match="missing is not a folder"):
        Crops([empty / "missing"], 16)


@pytest.mark.parametrize("side", [8, 16, 28, 64, 96, 128])
def test_images_of_the_size_of_a_crop_are_taken_whole(side: int) -> None:
    crops = Crops([np.zeros((1, side, side), np.uint8)], side, 1)
    assert {crops._draw(np.random.default_rng(k)).side for k in range(20)} == {side}
