"""Damaged and unusual files on the command line: a result, or one line of error and no output."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import encoded, npy, png, tiff
from PIL import Image
from shell import genprior, photo, snapshot

from genprior.io.images import read_image

SIZE = (24, 40)


def seeds() -> dict[str, bytes]:
    """Valid files, and some that are valid but cannot be restored."""
    colour, grey = photo(size=SIZE), photo(1, size=SIZE)
    rgba = np.dstack([colour, grey])
    deep = colour.astype(np.uint16) * 257
    line, point = colour[:1], colour[:1, :1]
    return {
        "rgb.png": encoded("PNG", colour),
        "grey.png": encoded("PNG", grey),
        "rgba.png": encoded("PNG", rgba),
        "palette.png": encoded("PNG", colour, "P"),
        "one-bit.png": encoded("PNG", grey, "1"),
        "deep.png": png(deep),
        "line.png": encoded("PNG", line),
        "point.png": encoded("PNG", point),
        "rgb.jpg": encoded("JPEG", colour, exif=_turned()),
        "cmyk.jpg": encoded("JPEG", colour, "CMYK"),
        "grey.jpg": encoded("JPEG", grey),
        "rgb.webp": encoded("WEBP", colour),
        "rgba.webp": encoded("WEBP", rgba, lossless=True),
        "lzw.tif": encoded("TIFF", colour, compression="tiff_lzw"),
        "deep.tif": tiff(deep, photometric="rgb"),
        "float.tif": tiff((colour / 255).astype(np.float32), photometric="rgb"),
        "five.tif": tiff(np.zeros((9, 9, 5), np.uint8), photometric="rgb"),
        "int.tif": tiff(np.zeros((9, 9), np.int32)),
        "pages.tif": tiff(np.zeros((3, 9, 9), np.uint8), photometric="minisblack"),
        "rgb.bmp": encoded("BMP", colour),
        "line.bmp": encoded("BMP", line.swapaxes(0, 1)),
        "rgb.npy": npy(colour),
        "float.npy": npy(colour / 255),
        "nan.npy": npy(np.where(colour > 100, np.nan, 0.5)),
        "five.npy": npy(np.zeros((9, 9, 5), np.uint8)),
        "object.npy": npy(np.array([[object()]])),
        "animated.gif": encoded("GIF", grey),
    }


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


SEEDS = seeds()
SUFFIXES = (".png", ".jpg", ".webp", ".tif", ".bmp", ".npy", ".txt", "")


def huge(data: bytes, width: int, height: int) -> bytes:
    """Replaces the image size in the header."""
    new = bytearray(data)
    if data.startswith(b"\x89PNG"):
        new[16:24] = struct.pack(">II", width, height)
        new[29:33] = struct.pack(">I", zlib.crc32(new[12:29]))
    elif data.startswith(b"BM"):
        new[18:26] = struct.pack("<ii", width % 2**31, height % 2**31)
    elif data.startswith(b"\x93NUMPY"):
        return data.replace(b"(24, 40", f"({height}, {width}".encode())
    else:  # at every place where the size is found
        for size in SIZE:
            for form in (">H", "<H", "<I"):
                new = new.replace(struct.pack(form, size), struct.pack(form, width % 2**16))
    return bytes(new)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    name = draw(st.sampled_from(sorted(SEEDS)))
    data = SEEDS[name]
    stem, suffix = os.path.splitext(name)
    place = st.one_of(st.integers(0, 100), st.integers(0, len(data) - 1))
    for kind in draw(st.lists(st.sampled_from(KINDS), max_size=2)):
        if kind == "cut":
            data = data[: draw(st.integers(0, len(data)))]
        elif kind == "flip":
            bits = bytearray(data)
            for position in draw(st.lists(place, min_size=1, max_size=4)):
                if bits:
                    bits[position % len(bits)] ^= 1 << draw(st.integers(0, 7))
            data = bytes(bits)
        elif kind == "zero":
            start = draw(place)
            data = data[:start] + bytes(64) + data[start + 64 :]
        elif kind == "suffix":
            suffix = draw(st.sampled_from(SUFFIXES))
        elif kind == "huge":
            sizes = st.sampled_from([0, 1, 4000, 65535, 2**31 - 1])
            data = huge(data, draw(sizes), draw(sizes))
        elif kind == "noise":
            data = data[:16] + draw(st.binary(max_size=200))
        elif kind == "other":
            other = SEEDS[draw(st.sampled_from(sorted(SEEDS)))]
            data = data[: len(data) // 2] + other[len(other) // 2 :]
    return stem + suffix, data


KINDS = ("cut", "flip", "zero", "suffix", "huge", "noise", "other")
TASKS = (
    ("denoise", "--noise", "0.1"),
    ("inpaint", "--mask", "random=0.5"),
    ("inpaint", "--mask", "alpha"),
    ("inpaint", "--mask", "@"),
    ("superres", "--factor", "2"),
    ("deblur", "--gaussian", "0.5"),
    ("deblur", "--kernel", "@"),
)


def check(folder: Path, weights: Path, file: tuple[str, bytes], task: tuple[str, ...]) -> None:
    name, data = file
    for left in folder.iterdir():
        left.unlink()
    path = folder / name
    path.write_bytes(data)
    given = path
    if "@" in task:  # the file is the mask or the kernel, not the image
        given = folder / "sound.png"
        given.write_bytes(SEEDS["rgb.png"])
        task = tuple(str(path) if word == "@" else word for word in task)
    before = snapshot(folder)
    options = ["--prior", weights, "--solver", "hqs", "--steps", 1, "--max-pixels", 4000]
    result = genprior(*task[:1], given, *task[1:], *options, "-o", folder / "out.tif")
    after = snapshot(folder)
    if result.exit_code == 0:
        assert set(after) - set(before) == {str(folder / "out.tif"), str(folder / "out.json")}
        assert read_image(folder / "out.tif").pixels.isfinite().all()
    else:
        assert result.exit_code == 3, result.output
        assert result.stdout == "" and result.stderr.count("\n") == 1
        assert result.stderr.startswith((f"genprior: {given}: ", f"genprior: {path}: "))
        assert after == before


@settings(max_examples=160, deadline=None, suppress_health_check=list(HealthCheck))
@given(files(), st.sampled_from(TASKS))
def test_a_result_or_one_line(tmp_path: Path, weights: Path, file: tuple, task: tuple) -> None:
    check(tmp_path, weights, file, task)


@pytest.mark.slow
@settings(max_examples=1600, deadline=None, suppress_health_check=list(HealthCheck))
@given(files(), st.sampled_from(TASKS))
def test_a_result_or_one_line_1600_times(
    tmp_path: Path, weights: Path, file: tuple, task: tuple
) -> None:
    check(tmp_path, weights, file, task)


@pytest.mark.parametrize("name", SEEDS)
def test_valid_files_are_restored_and_others_are_refused(
    tmp_path: Path, weights: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(SEEDS[name])
    options = ["--prior", weights, "--solver", "hqs", "--steps", 1, "--noise", 0.1]
    result = genprior("denoise", tmp_path / name, *options, "-o", tmp_path / "out.png")
    bad = ("five", "int", "pages", "nan", "object", "animated")
    assert result.exit_code == (3 if name.startswith(bad) else 0), result.output
