"""genprior denoise on JPEG files: undoes their compression, or removes their noise."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import levels, sidecar, succeed
from skimage import data

from genprior.operators.jpeg_tables import standard_tables

SIZE = (96, 128)
CLEAN = data.astronaut()[: SIZE[0], 160 : 160 + SIZE[1]]


def compressed(path: Path, noise: float = 0.0, **about: object) -> Path:
    """Writes the photo with white noise as a JPEG file."""
    noisy = CLEAN / 255 + np.random.default_rng(0).normal(0, noise, CLEAN.shape)
    Image.fromarray((255 * noisy.clip(0, 1)).round().astype("u1")).save(path, **about)
    return path


def decibels(path: Path) -> float:
    """Returns the PSNR of a file of the clean image, which is 8 bits."""
    error = levels(path) / 255 - CLEAN / 255
    return -10 * np.log10(np.square(error).mean())


def test_denoising_undoes_the_compression_of_files_without_noise(tmp_path: Path) -> None:
    files = [compressed(tmp_path / f"{quality}.jpg", quality=quality) for quality in (20, 60)]
    again = tmp_path / "again.png"
    Image.open(compressed(tmp_path / "first.jpg", quality=30)).save(again)
    files.append(again)
    told = succeed("denoise", *files, "--ext", "png").stdout
    for file, quality in zip(files, (20, 60, 30), strict=True):
        output = file.with_name(f"{file.stem}.genprior.png")
        assert decibels(output) > decibels(file) + 0.5
        record = sidecar(output)
        assert record["solver"] == "dithered-mean" and record["task"] == "denoise"
        assert record["noise"] == 0 and record["noise_estimated"]
        assert record["noise_found"] == f"JPEG quality {quality}"
        assert record["jpeg"]["tables"] == standard_tables(quality).flatten(1).int().tolist()
        assert record["warnings"] == []
    assert told.count("noise 0 (estimated), JPEG quality ") == 3


@pytest.mark.parametrize(
    ("quality", "sampling"), [(92, "4:2:0"), (92, "4:4:4"), (80, "4:2:0"), (60, "4:4:4")]
)
def test_denoising_removes_white_noise_of_compressed_files(
    tmp_path: Path, quality: int, sampling: str
) -> None:
    file = compressed(tmp_path / "a.jpg", 0.1, quality=quality, subsampling=sampling)
    succeed("denoise", file)
    output = tmp_path / "a.genprior.jpg"
    record = sidecar(output)
    assert record["solver"] == "posterior-mean" and record["noise"] > 0.04
    assert record["noise_found"].endswith(f"JPEG quality {quality}") and "jpeg" not in record
    assert decibels(output) > decibels(file) + 4
    succeed("denoise", file, "--noise", 0.1, "-o", tmp_path / "known.jpg")
    assert decibels(output) > decibels(tmp_path / "known.jpg") - 1


@pytest.mark.parametrize("option", [("--noise", 0.05), ("--solver", "posterior-mean")])
def test_denoising_with_a_given_method_leaves_the_compression(
    tmp_path: Path, option: tuple
) -> None:
    succeed("denoise", compressed(tmp_path / "a.jpg", quality=20), *option)
    record = sidecar(tmp_path / "a.genprior.jpg")
    assert record["solver"] == "posterior-mean" and "jpeg" not in record
