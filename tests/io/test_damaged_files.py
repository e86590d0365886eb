"""Damaged, misnamed and unsupported files raise errors that say what to do."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import chunk, deep_tiff, encoded, levels, pillow, png, tiff
from PIL import Image

from genprior.io.images import ImageError, read_image, read_mask, read_size

FUZZED = {
    ".png": encoded("PNG"),
    ".jpg": encoded("JPEG"),
    ".webp": encoded("WEBP"),
    ".tif": encoded("TIFF", compression="tiff_lzw"),
    ".tiff": deep_tiff(),
    ".bmp": encoded("BMP"),
}


def damaged(tmp_path: Path, name: str, data: bytes) -> Path:
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.97])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.bmp", "a.npy", "d.png"])
def test_truncated_files(tmp_path: Path, name: str, cut: float) -> None:
    if name == "d.png":
        data = png(levels(3, 16))
    elif name == "a.npy":
        file = io.BytesIO()
        np.save(file, levels(3, 8))
        data = file.getvalue()
    else:
        formats = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".bmp": "BMP"}
        data = encoded(formats[name[1:]])
    path = damaged(tmp_path, name, data[: int(len(data) * cut)])
    with pytest.raises(ImageError, match=r"damaged or cut short \(.+\): get another copy"):
        read_image(path)


def test_reading_refuses(tmp_path: Path) -> None:
    huge = bytearray(encoded("BMP"))
    huge[18:26] = struct.pack("<ii", 60000, 60000)
    pages, five, signed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    tifffile.imwrite(pages, np.zeros((2, 4, 4), np.uint8), photometric="minisblack")
    tifffile.imwrite(five, np.zeros((6, 7, 5), np.uint16), photometric="rgb")
    tifffile.imwrite(signed, np.zeros((4, 4), np.int32))
    zero = bytearray(encoded("BMP"))
    zero[18:22] = bytes(4)
    frames = [pillow(levels(3, 8)), pillow(levels(3, 8))]
    cases = [
        ("a.png", b"", "the file is empty"),
        ("a.png", b"hello, this is text", r"not an image in PNG, .* or NPY format"),
        ("a.png", encoded("GIF"), "not an image in PNG"),
        ("a.png", encoded("JPEG"), r"a\.png: holds JPEG, not PNG: rename it to \.jpg"),
        ("a.bmp", bytes(huge), "is 60000 x 60000 pixels, more than 178956970"),
        ("a.bmp", bytes(zero), "is 0 x 40 pixels|damaged"),
        ("a.tif", pages.getvalue(), "holds 2 images"),
        ("a.tif", five.getvalue(), "has 5 channels"),
        ("a.tif", signed.getvalue(), "holds 32-bit int32: save it with 8 or 16 bits"),
        ("a.tif", deep_tiff()[:-20], "damaged or cut short"),
        ("a.png", encoded("PNG", save_all=True, append_images=frames), "holds 3 images"),
        ("a.tif", encoded("TIFF", np.zeros((4, 4, 1), np.int32)), "32-bit int32"),
    ]
    for name, data, message in cases:
        with pytest.raises(ImageError, match=message):
            read_image(damaged(tmp_path, name, data))
    with pytest.raises(ImageError, match=r"none\.png: cannot be read \(no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="more than 1599: shrink it or raise max_pixels"):
        read_image(damaged(tmp_path, "a.png", encoded("PNG")), max_pixels=1599)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_damaged_16_bit_png_after_exif(tmp_path: Path, channels: int) -> None:
    """The decoder of torchvision ends the process here."""
    exif = Image.Exif()
    exif[0x0112] = 5
    data = png(levels(channels, 16), b"", chunk(b"eXIf", exif.tobytes()[6:]))
    pixels = data.index(b"IDAT") + 4
    for cut in (2, 40):
        packed = data[pixels : pixels + cut] + bytes(60)
        broken = data[: pixels - 8] + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
        with pytest.raises(ImageError, match="damaged or cut short"):
            read_image(damaged(tmp_path, "a.png", broken))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff_band_that_is_not_alpha_is_refused(
    tmp_path: Path, dtype: type, channels: int, planar: str
) -> None:
    shape = (6, 7, channels) if planar == "contig" else (channels, 6, 7)
    about = {"photometric": "rgb" if channels == 4 else "minisblack", "planarconfig": planar}
    data = tiff(np.zeros(shape, dtype), extrasamples=["unspecified"], **about)
    with pytest.raises(ImageError, match=rf"has {channels} bands, of which 1 are neither"):
        read_image(damaged(tmp_path, "a.tif", data))


def test_tiff_of_unusual_numbers_and_inks_is_refused(tmp_path: Path) -> None:
    inks = np.zeros((4, 4, 4), np.uint8)
    cases = [
        (tiff(np.full((4, 4), -1, np.int8)), "holds 8-bit int8: .* integers must be unsigned"),
        (tiff(np.zeros((4, 4, 3), np.int8), photometric="rgb"), "8-bit int8"),
        (tiff(np.full((4, 4), -1, np.int16)), "16-bit int16"),
        (tiff(inks, photometric="separated", extratags=[(332, 3, 1, 2, True)]), "not plain CMYK"),
        (tiff(inks, photometric="separated", extratags=[(336, 3, 2, (255, 0), True)]),
         "not plain CMYK"),
    ]
    for data, message in cases:
        with pytest.raises(ImageError, match=message):
            read_image(damaged(tmp_path, "a.tif", data))


def tagged(entries: list[tuple[int, int, int]], strip: bytes) -> bytes:
    """Returns a TIFF of one directory with (tag, type, value); a value of None is the strip's."""
    offset = 8 + 2 + 12 * len(entries) + 4
    words = [(t, k, 1, {273: offset, 324: offset}.get(t, value)) for t, k, value in entries]
    directory = b"".join(struct.pack("<HHII", *word) for word in words)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + strip


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_with_a_huge_tile_is_refused(tmp_path: Path, bits: int) -> None:
    entries = [(256, 4, 10), (257, 4, 10), (258, 3, bits), (259, 3, 8), (262, 3, 1), (277, 3, 1),
               (322, 4, 30000), (323, 4, 30000), (324, 4, 0), (325, 4, 9)]
    path = damaged(tmp_path, "a.tif", tagged(entries, zlib.compress(b"0")))
    with pytest.raises(ImageError, match="tiles of 30000 x 30000 pixels, more than 178956970"):
        read_image(path)
    with pytest.raises(ImageError, match="more than 1048576: save it with smaller tiles"):
        read_size(path, max_pixels=100)


def test_tiff_with_a_strip_of_too_many_bytes_is_refused(tmp_path: Path) -> None:
    strip = zlib.compress(bytes(2**27))
    entries = [(256, 4, 10), (257, 4, 10), (258, 3, 16), (259, 3, 8), (262, 3, 1), (273, 4, 0),
               (277, 3, 1), (278, 4, 10), (279, 4, len(strip))]
    with pytest.raises(ImageError, match="strip or tile of more than 67109064 bytes"):
        read_image(damaged(tmp_path, "a.tif", tagged(entries, strip)))
    sound = zlib.compress(bytes(200))
    entries[-1] = (279, 4, len(sound))
    assert not read_image(damaged(tmp_path, "a.tif", tagged(entries, sound))).pixels.any()


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no device files")
@pytest.mark.parametrize("read", [read_image, read_mask, read_size])
def test_devices_are_refused(tmp_path: Path, read) -> None:
    (tmp_path / "a.png").symlink_to("/dev/zero")
    for path in (Path("/dev/zero"), tmp_path / "a.png"):
        with pytest.raises(ImageError, match=f"{path}: is a device, not an image file"):
            read(path)


def test_files_of_more_bytes_than_an_image_has_are_not_read(tmp_path: Path) -> None:
    path = damaged(tmp_path, "a.png", encoded("PNG"))
    os.truncate(path, 2**40)  # without blocks on the disk
    with pytest.raises(ImageError, match="has more than 67160064 bytes"):
        read_image(path, max_pixels=1600)
    os.truncate(damaged(tmp_path, "b.png", b""), 2**40)
    with pytest.raises(ImageError, match="b.png: not an image in PNG"):
        read_image(tmp_path / "b.png")


def test_arrays_refused(tmp_path: Path) -> None:
    cases = [
        (np.zeros((3, 4, 7)), r"has shape \(3, 4, 7\)"),
        (np.zeros((4, 4), np.int64), "holds int64"),
        (np.zeros((0, 4)), "is 4 x 0 pixels"),
        (np.array([[object()]]), "holds object"),
        (np.full((4, 4), np.inf), "NaN or infinite"),
        (np.full((4, 4), 255.0), "values from 255 to 255"),
    ]
    for array, message in cases:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ImageError, match=f"a.npy: {'.*'}{message}"):
            read_image(tmp_path / "a.npy")


def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path) -> None:
    data = bytearray(encoded("PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match="damaged"):
        read_image(damaged(tmp_path, "a.png", bytes(data)))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(FUZZED)), st.data())
def test_damaged_files_raise_image_errors_or_are_read(
    tmp_path: Path, suffix: str, draw: st.DataObject
) -> None:
    data = bytearray(FUZZED[suffix])
    # Mostly the header, where a flip does most harm.
    place = st.one_of(st.integers(0, 200), st.integers(0, len(data) - 1))
    for position in draw.draw(st.lists(place, max_size=4)):
        data[position % len(data)] = draw.draw(st.integers(0, 255))
    path = damaged(tmp_path, f"a{suffix}", bytes(data[: draw.draw(st.integers(0, len(data)))]))
    try:
        picture = read_image(path, max_pixels=10**6)
    except ImageError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert picture.pixels.isfinite().all()
