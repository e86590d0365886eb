"""Decoding of files written by other programs. Oracles: Pillow, tifffile."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import as_array, levels, pillow, png
from PIL import Image, ImageCms

from genprior.io.images import read_image, write_image

SHAPES = {"L": (1,), "LA": (2,), "RGB": (3,), "RGBA": (4,)}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
rng = np.random.default_rng(0)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u2", "f4", "f2", "f8"])
def test_deep_tiff(tmp_path: Path, kind: str, planar: str, order: str, dtype: str) -> None:
    channels = SHAPES[kind][0]
    array = levels(channels, 16) if dtype == "u2" else rng.random((7, 9, channels)).astype(dtype)
    layout = array if planar == "contig" else np.moveaxis(array, 2, 0)
    tifffile.imwrite(
        tmp_path / "a.tif",
        layout.squeeze(),
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig=planar if channels > 1 else None,
        byteorder=order,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        predictor=dtype == "u2",
    )
    picture = read_image(tmp_path / "a.tif")
    assert picture.bits == (16 if dtype == "u2" else 32)
    np.testing.assert_array_equal(as_array(picture), array.astype("f4"))
    write_image(tmp_path / "b.tif", picture)
    written = tifffile.imread(tmp_path / "b.tif").reshape(array.shape)
    assert written.dtype == ("u2" if dtype == "u2" else "f4")
    np.testing.assert_array_equal(written, array.astype(written.dtype))


def test_tiff_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    array = levels(1, 16)
    tifffile.imwrite(path, array[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(as_array(read_image(path)), 65535 - array)
    pillow(array).save(path, compression="tiff_lzw")
    np.testing.assert_array_equal(as_array(read_image(path)), array)
    colour = levels(3, 8)
    pillow(colour).save(path, compression="tiff_lzw")
    np.testing.assert_array_equal(as_array(read_image(path)), colour)
    tifffile.imwrite(path, levels(3, 16), bigtiff=True, photometric="rgb")
    assert read_image(path).bits == 16


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_of_other_writers(tmp_path: Path, channels: int) -> None:
    array = levels(channels, 16)
    (tmp_path / "a.png").write_bytes(png(array))
    picture = read_image(tmp_path / "a.png")
    assert picture.bits == 16
    np.testing.assert_array_equal(as_array(picture), array)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png_with_a_transparent_colour(tmp_path: Path, channels: int) -> None:
    array = levels(channels, 16)
    (tmp_path / "a.png").write_bytes(png(array, array[2, 3].astype(">u2").tobytes()))
    picture = read_image(tmp_path / "a.png")
    assert picture.alpha is not None
    assert (picture.alpha == 0).nonzero().tolist() == [[0, 0, 2, 3]]
    np.testing.assert_array_equal(as_array(picture)[..., :-1], array)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 250, 10))])
def test_palettes_become_colours(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = pillow(levels(3, 8)).quantize(25)
    about = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "a.png", **about)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.convert("RGB" if transparency is None else "RGBA"))
    picture = read_image(tmp_path / "a.png")
    assert picture.mode == "P"
    np.testing.assert_array_equal(as_array(picture), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit(tmp_path: Path, suffix: str) -> None:
    bits = levels(1, 8)[..., 0] > 99
    Image.fromarray(bits).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(
        as_array(read_image(tmp_path / f"a{suffix}"))[..., 0], bits * 255
    )


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image.save(tmp_path / f"a{suffix}", icc_profile=PROFILE)  # unusable for CMYK
    picture = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(as_array(picture)[0, 0], [255, 0, 0], atol=3)
    assert picture.icc is None


def test_pixels_are_read_despite_broken_exif(tmp_path: Path) -> None:
    array = levels(3, 8)
    pillow(array).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.png")), array)
