"""Data leakage: images of the training data are refused as validation data."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shell import refused, save_photo, succeed

from genprior.core.errors import SettingError
from genprior.priors.ddpm import DDPM
from genprior.training import leakage
from genprior.training.crops import Crops
from genprior.training.leakage import common_file, common_image
from genprior.training.loop import Settings, fit

OPTIONS = ["--set", "widths=[4,8]", "--set", "blocks=[1,1]", "--steps", 1, "--batch", 2,
           "--crop", 16, "--no-preview", "-q"]
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "judge").mkdir(parents=True)
    for k, name in enumerate(("a.png", "b.png", "judge/c.png")):
        save_photo(folder / name, start=30 * k)
    return folder


def sheets(folder: Path, images: np.ndarray) -> list[Path]:
    """Files of equal size that begin alike and differ at their ends only."""
    folder.mkdir()
    files = [folder / f"{k}.bmp" for k in range(len(images))]
    for file, pixels in zip(files, images, strict=True):
        whole = np.zeros((64, 64, 3), np.uint8)
        whole[:16, :16] = pixels  # a BMP begins with the last row
        Image.fromarray(whole).save(file)
    return files


def test_the_command_refuses_training_images_as_validation(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos / "judge")
    (tmp_path / "copy").mkdir()
    save_photo(tmp_path / "copy" / "0.png", start=99)
    shutil.copyfile(photos / "b.png", tmp_path / "copy" / "another-name.png")
    sources = {photos: "a.png", photos / "judge": "c.png", photos / "b.png": "b.png",
               tmp_path / "link": "c.png", tmp_path / "copy": "another-name.png"}
    for where, name in sources.items():
        words = ["train", "ddpm", photos, "-o", tmp_path / "run", *OPTIONS, "--validate", where]
        code, message = refused(*words)
        assert code == 2 and f"{name} is in the training and in the validation" in message
        assert not (tmp_path / "run").exists()
    (tmp_path / "copy" / "another-name.png").unlink()
    succeed("train", "ddpm", photos, "-o", tmp_path / "run", *OPTIONS,
            "--validate", tmp_path / "copy")


@pytest.mark.parametrize("suffix", [".npy", ""])
def test_fit_refuses_a_training_set_as_validation(suffix: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    np.save(tmp_path / "copy.npy", PIXELS)
    images, copy = (tmp_path / "a.npy", tmp_path / "copy.npy") if suffix else (PIXELS, PIXELS + 0)
    prior = DDPM(widths=(4, 8), blocks=(1, 1))
    for validation in (images, copy):
        named = str(validation) if suffix else "image 0 of 4"
        with pytest.raises(SettingError, match=f"{named} is in the training and in the valid"):
            fit("ddpm", prior, Crops([images], 16), tmp_path / "run", Settings(steps=1, batch=2),
                validation=Crops([validation], 16))


def test_sets_of_torchvision_are_compared_as_a_whole(tmp_path: Path) -> None:
    name = "torchvision:FakeData,size=9"
    data = Crops([name], 16)
    assert common_image(data, Crops([name], 16, held_out=True)) == "image 0 of 9"
    assert common_image(data, Crops(["torchvision:FakeData,size=8"], 16)) is None
    images = torch.utils.data.Subset(data.images.entries[0][0].items, range(1, 9))
    assert common_image(data, Crops([images], 16)) is None


def test_files_of_one_size_are_told_apart_and_few_are_read(tmp_path: Path, monkeypatch) -> None:
    first, second = sheets(tmp_path / "first", PIXELS[:2]), sheets(tmp_path / "second", PIXELS[2:])
    assert len({file.stat().st_size for file in first + second}) == 1
    assert common_file(first, second) is None
    (copy,) = sheets(tmp_path / "third", PIXELS[:1])
    assert common_file([*second, copy], first) == copy
    read: list[Path] = []
    monkeypatch.setattr(leakage, "_head", read.append)
    (tmp_path / "small.png").write_bytes(b"of another size")
    assert common_file([tmp_path / "small.png"], first) is None and not read
