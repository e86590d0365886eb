"""Too large images are refused by their header, in every command that reads images."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shell import refused, save_photo, snapshot, succeed

from genprior.core.errors import ImageError
from genprior.io import datasets
from genprior.io.datasets import open_source
from genprior.io.images import read_size

TEXTURE = "--prior texture --exemplar @BIG"
EVALUATE = "evaluate --quiet @SMALL -o @/out --prior none --baseline tv --task"
TRAIN = "-o @/out --crop 8 --steps 1 --quiet"
# @BIG is an image that is too large, @FOLDER the folder of it, @SMALL a folder of small images.
COMMANDS = [
    "inpaint @BIG --mask box=3x3",
    "inpaint @/a.png --mask @BIG",
    "inpaint @/a.png --mask @FOLDER",
    "deblur @/a.png --kernel @BIG",
    f"denoise @/a.png --noise 0.1 {TEXTURE}",
    "degrade denoise @BIG -o @/out.png",
    "degrade inpaint @/a.png -o @/out.png --mask @BIG",
    "degrade deblur @/a.png -o @/out.png --kernel @BIG",
    "texture @BIG -o @/out.png",
    f"sample -o @/out.png {TEXTURE}",
    f"{EVALUATE.replace('SMALL', 'FOLDER')} denoise:noise=0.1",
    f"{EVALUATE} inpaint:mask=@BIG",
    f"{EVALUATE} deblur:kernel=@BIG",
    f"{EVALUATE} denoise:noise=0.1 --tune @FOLDER",
    f"{EVALUATE.replace('--prior none', TEXTURE)} denoise:noise=0.1",
    f"train vae @BIG {TRAIN}",
    f"train vae @FOLDER {TRAIN}",
    f"train vae @SMALL --validate @BIG {TRAIN}",
    f"train pca @FOLDER {TRAIN.replace('--steps 1', '')}",
    f"train texture @BIG {TRAIN.replace('--steps 1', '')}",
]


def huge(path: Path) -> Path:
    """A PNG whose header says 20000 x 20000 pixels, and nothing else."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(b"")
    body = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + body)
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    save_photo(tmp_path / "a.png")
    for name in ("small", "large", "huge"):
        (tmp_path / name).mkdir()
    save_photo(tmp_path / "small" / "a.png")
    Image.fromarray(np.full((60, 61), 255, np.uint8)).save(tmp_path / "large" / "a.png")
    huge(tmp_path / "huge" / "a.png")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind, size, limit", [
    ("large", "61 x 60", ["--max-pixels", 1000]), ("huge", "20000 x 20000", []),
])
def test_too_large_is_refused_everywhere(
    here: Path, command: str, kind: str, size: str, limit: list
) -> None:
    before = snapshot(here)
    words = command.replace("@BIG", "@FOLDER/a.png").replace("@FOLDER", f"@/{kind}")
    words = words.replace("@SMALL", "@/small").replace("@", str(here)).split()
    code, message = refused(*words, *limit)
    assert code == 3 and f"is {size} pixels, more than" in message
    assert snapshot(here) == before


@pytest.mark.parametrize("name", ["many.npy", "many-idx3"])
def test_arrays_of_large_images_are_refused(here: Path, name: str) -> None:
    np.save(here / "many.npy", np.zeros((2, 60, 61), np.uint8))
    (here / "many-idx3").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 2**20, 60, 61))
    words = f"train vae {here / name} -o {here / 'out'} --crop 8 --steps 1 --max-pixels 3659"
    code, message = refused(*words.split())
    assert code == 3 and f"{name}: each image is 61 x 60 pixels, more than 3659" in message


@pytest.mark.parametrize("command", [
    f"train vae @DATA {TRAIN}",
    f"{EVALUATE.replace('@SMALL', '@DATA')} denoise:noise=0.1",
])
@pytest.mark.parametrize("kind, limit", [("large", ["--max-pixels", 1000]), ("huge", [])])
def test_the_limit_holds_for_data_sets(here: Path, command: str, kind: str, limit: list) -> None:
    """Those of torchvision open image files themselves, by Pillow."""
    (here / "data").mkdir()
    (here / kind).rename(here / "data" / "things")
    words = command.replace("@DATA", f"torchvision:ImageFolder:{here}/data")
    code, message = refused(*words.replace("@", str(here)).split(), *limit)
    most = limit[-1] if limit else 178956970
    assert code == 3 and f"has more than {most} pixels: shrink it or raise max_pixels" in message
    assert Image.MAX_IMAGE_PIXELS not in (1000, 178956970)


def test_the_limit_holds_for_items_of_any_kind() -> None:
    grey = Image.new("L", (61, 60))
    for item in (grey, (grey, 1), np.zeros((60, 61), np.uint8), torch.zeros(1, 60, 61)):
        assert open_source([item], 1, 3660).size(0) == (61, 60)
        with pytest.raises(ImageError, match="image 0 of 1: is 61 x 60 pixels, more than 3659"):
            open_source([item], 1, 3659).size(0)


def test_the_limit_can_be_raised(here: Path) -> None:
    words = ["texture", here / "large" / "a.png", "-o", here / "out.png", "--max-pixels"]
    assert refused(*words, 3659)[0] == 3
    succeed(*words, 3660)


def test_sizes_are_read_from_headers(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image = Image.open(here / "a.png")
    for name in ("a.jpg", "a.png", "a.tif", "a.webp"):
        image.save(here / name, exif=exif)
        assert read_size(here / name) == (24, 32)
    np.save(here / "a.npy", np.zeros((4, 9, 3), np.uint8))
    assert read_size(here / "a.npy") == (9, 4)
    with pytest.raises(ImageError, match="a.png: is 20000 x 20000 pixels, more than 178956970"):
        read_size(here / "huge" / "a.png")
    monkeypatch.setattr(datasets, "HELD_PIXELS", 0)
    with pytest.raises(ImageError, match="more than 767: shrink it"):
        open_source(here / "a.png", 3, 767).size(0)
