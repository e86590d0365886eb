"""Image collections: arrays, folders, data sets of torch and torchvision."""

import gzip
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from genprior.core.errors import ImageError, SettingError
from genprior.evaluation.reference_images import open_reference_images
from genprior.io import datasets
from genprior.io.datasets import open_items, open_source
from genprior.training.crops import Crops

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (5, 12, 10), dtype=np.uint8)
COLOUR = rng.integers(0, 256, (4, 12, 10, 3), dtype=np.uint8)


def arrays(source, channels: int) -> list[np.ndarray]:
    images = open_source(source, channels)
    return [np.asarray(images[k]) for k in range(len(images))]


def same(a, b) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def test_arrays_of_bytes_and_of_floats(tmp_path: Path) -> None:
    np.save(tmp_path / "grey.npy", GREY)
    np.save(tmp_path / "colour.npy", COLOUR.astype(np.float32) / 255)
    assert same(arrays(tmp_path / "grey.npy", 1), GREY)
    assert same(arrays(str(tmp_path / "colour.npy"), 3), COLOUR)
    assert same(arrays(tmp_path / "grey.npy", 3), [np.stack([x] * 3, 2) for x in GREY])


@pytest.mark.parametrize("zipped", [False, True])
def test_the_format_of_mnist(tmp_path: Path, zipped: bool) -> None:
    data = struct.pack(">HBB3I", 0, 8, 3, *GREY.shape) + GREY.tobytes()
    file = tmp_path / ("train-images-idx3-ubyte" + ".gz" * zipped)
    file.write_bytes(gzip.compress(data) if zipped else data)
    assert same(arrays(file, 1), GREY)


def test_data_sets_of_torch_and_of_torchvision(tmp_path: Path) -> None:
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(COLOUR).permute(0, 3, 1, 2),
                                           torch.arange(4))
    assert same(arrays(pairs, 3), COLOUR)
    assert len(open_source("torchvision:FakeData", 3)) == 1000
    data = tmp_path / "MNIST" / "raw"
    data.mkdir(parents=True)
    for part, held in (("train", GREY), ("t10k", GREY[:2])):
        images = struct.pack(">HBB3I", 0, 8, 3, *held.shape) + held.tobytes()
        (data / f"{part}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">HBBI", 0, 8, 1, len(held)) + bytes(len(held))
        (data / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    name = f"torchvision:MNIST:{tmp_path}"
    assert same(arrays(name, 1), GREY)
    assert len(open_source(name, 1, held_out=True)) == len(open_reference_images(name, 10**6)) == 2
    assert len(open_reference_images(name, 10**6, held_out=False)) == 5
    assert len(open_source(f"torchvision:MNIST,train=false:{tmp_path}", 1)) == 2


class Parts(torch.utils.data.Dataset):
    def __init__(self, root, split="train"):
        if split not in ("train", "val"):
            raise ValueError(split)
        self.split = split


class Letters(torch.utils.data.Dataset):
    def __init__(self, root, split, **kwargs):
        self.split = split


def test_parts_of_data_sets_that_have_other_names(monkeypatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "Imagenette", Parts)
    assert open_items("torchvision:Imagenette").split == "train"
    assert open_items("torchvision:Imagenette", held_out=True).split == "val"
    assert open_items("torchvision:Imagenette,split=train", held_out=True).split == "train"
    monkeypatch.setattr(torchvision.datasets, "EMNIST", Letters)
    assert open_items("torchvision:EMNIST,split=letters").split == "letters"
    with pytest.raises(SettingError, match="'split'.*write torchvision:EMNIST,SETTING=VALUE"):
        open_items("torchvision:EMNIST")
    with pytest.raises(SettingError, match="no setting 'part': choose one of split"):
        open_items("torchvision:EMNIST,part=letters")


class Pictures(torch.utils.data.Dataset):
    def __init__(self, root, image_set="train", size: int = 3, year: str = "2012"):
        self.told = (image_set, size, year)


class Faces(Pictures):
    def __init__(self, root, split="10fold", image_set="funneled"):
        self.told = (split, image_set)


def test_parts_and_numbers_of_other_data_sets(monkeypatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "VOCDetection", Pictures)
    assert open_items("torchvision:VOCDetection").told == ("train", 3, "2012")
    held = open_items("torchvision:VOCDetection,size=5,year=2007", held_out=True)
    assert held.told == ("val", 5, "2007")
    monkeypatch.setattr(torchvision.datasets, "LFWPeople", Faces)
    assert open_items("torchvision:LFWPeople").told == ("train", "funneled")
    assert open_items("torchvision:LFWPeople", held_out=True).told == ("test", "funneled")


class Kept(torch.utils.data.Dataset):
    def __init__(self, root, download=False):
        self.told = (Path(root), download)


def test_data_sets_are_downloaded_into_the_cache_folder(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torchvision.datasets, "SVHN", Kept)
    monkeypatch.delenv("GENPRIOR_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    kept = tmp_path / "caches" / "genprior" / "SVHN"
    assert open_items("torchvision:SVHN").told == (kept, True)
    monkeypatch.setenv("GENPRIOR_HOME", str(tmp_path / "ours"))
    assert open_items("torchvision:SVHN").told == (tmp_path / "ours" / "SVHN", True)


class Items(torch.utils.data.Dataset):
    def __init__(self, items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, k: int):
        return self.items[k]


def test_items_are_read_like_files() -> None:
    deep = Image.fromarray((np.arange(256) * 257).astype(np.uint16).reshape(16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(file, "JPEG", exif=exif)
    source = open_source(Items([deep, Image.open(file)]), 1)
    assert np.array_equal(np.asarray(source[0]).ravel(), np.arange(256))
    assert source[1].size == (4, 8)
    with pytest.raises(ImageError, match="image 1 of 2: .*NaN"):
        open_source([np.zeros((4, 4), np.float32), np.full((4, 4), np.nan, np.float32)], 1)[1]


def test_a_folder_too_large_for_memory_gives_the_same_crops(tmp_path: Path, monkeypatch) -> None:
    for k, array in enumerate(COLOUR):
        exif = Image.Exif()
        exif[0x0112] = 6 if k == 1 else 1  # turned by a quarter
        Image.fromarray(array).save(tmp_path / f"{k}.png", exif=exif)
    held = Crops([tmp_path], 8).batch(3, 10)
    monkeypatch.setattr(datasets, "HELD_PIXELS", 0)
    assert torch.equal(Crops([tmp_path], 8).batch(3, 10), held)


def test_flips_turns_and_scale_can_be_left_out() -> None:
    images = [np.arange(144, dtype=np.uint8).reshape(12, 12)]
    plain = Crops([images], 12, 1, flip=False, turn=False, scale=False)
    batch = plain.batch(0, 20).mul(255).round().byte()
    assert (batch == torch.from_numpy(images[0])).all()
    with_flips = Crops([images], 12, 1, turn=False, scale=False).batch(0, 20)
    assert len(with_flips.unique(dim=0)) == 2
    small = Crops([[np.zeros((40, 40), np.uint8)]], 8, 1, scale=False)
    assert {small._draw(np.random.default_rng(k)).side for k in range(50)} == {8}


def test_rows_of_a_batch_are_those_of_the_whole() -> None:
    crops = Crops([list(COLOUR)], 7)
    whole = crops.batch(4, 6)
    parts = [crops.batch(4, 6, slice(0, 2)), crops.batch(4, 6, slice(2, 6))]
    assert torch.equal(torch.cat(parts), whole)


def test_pickled_crops_do_not_contain_the_images(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (9, 40, 40, 3), dtype=np.uint8)
    np.save("array.npy", pixels)
    Path("folder").mkdir()
    for k, array in enumerate(pixels):
        Image.fromarray(array).save(f"folder/{k}.png")
    for source in ("array.npy", "folder"):
        crops = Crops([source], 16)
        batch = crops.batch(0, 6)
        handed = pickle.dumps(crops)
        assert len(handed) < pixels[0].nbytes
        assert torch.equal(pickle.loads(handed).batch(0, 6), batch)
        assert len(crops.images.entries[0][0].held) == 9  # this process still holds them


def test_images_of_true_and_false_are_white_and_black(tmp_path: Path) -> None:
    np.save(tmp_path / "bits.npy", GREY > 99)
    assert same(arrays(tmp_path / "bits.npy", 1), (GREY > 99) * np.uint8(255))


class Unreachable(torch.utils.data.Dataset):
    def __init__(self, root, download):
        raise RuntimeError("no route to host")


def test_errors(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "x.npy").write_bytes(b"no array")
    (tmp_path / "y-idx3.gz").write_bytes(gzip.compress(bytes(99))[:20] + bytes(9))
    (tmp_path / "x-idx3").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 9, 9, 9))
    np.save(tmp_path / "flat.npy", np.zeros((3, 3)))
    for name, message in (("x.npy", "cannot be read as an array"), ("x-idx3", "as an idx file"),
                          ("y-idx3.gz", "as an idx file"),
                          ("flat.npy", r"images must be \(N, height, width\)"),
                          ("none.npy", "cannot be read as an array"),
                          ("none", "is not a folder")):
        with pytest.raises(ValueError, match=message):
            open_source(tmp_path / name, 3)
    with pytest.raises(SettingError, match="no data set 'Nothing': choose one of"):
        open_source("torchvision:Nothing", 3)
    monkeypatch.setattr(torchvision.datasets, "MNIST", Unreachable)
    message = "MNIST cannot be loaded .no route to host.: download it in"
    with pytest.raises(SettingError, match=message):
        open_source("torchvision:MNIST", 1)
