"""Decoding of files written by other programs. Oracles: Pillow, tifffile."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import as_array, chunk, levels, pillow, png, png_file, tiff
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


# First column and row of each pass of an interlaced PNG, and the steps to the next ones.
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2)]


def filtered(pixels: np.ndarray) -> bytes:
    """Returns the rows of a 16-bit PNG, with the five filters in turn."""
    height, width, channels = pixels.shape
    if not width:
        return b""
    values = pixels.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    padded = np.pad(values, ((1, 0), (2 * channels, 0)))
    left, up = padded[1:, : -2 * channels], padded[:-1, 2 * channels :]
    corner = padded[:-1, : -2 * channels]
    distance = [abs(left + up - corner - each) for each in (left, up, corner)]
    nearest = np.argmin(distance, 0)  # ties: left, then up
    paeth = np.choose(nearest, [left, up, corner])
    predictions = [0 * left, left, up, (left + up) // 2, paeth]
    rows = [
        bytes([kind]) + (values[y] - predictions[kind][y]).astype(np.uint8).tobytes()
        for y, kind in zip(range(height), [4, 3, 2, 1, 0] * height, strict=False)
    ]
    return b"".join(rows)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_of_all_filters(tmp_path: Path, channels: int, interlaced: bool) -> None:
    array = levels(channels, 16, (21, 19))
    array[3:9] //= 200  # neighbours that are alike, for all cases of the Paeth filter
    passes = PASSES if interlaced else [(0, 0, 1, 1)]
    rows = b"".join(filtered(array[y::dy, x::dx]) for x, y, dx, dy in passes)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    path = tmp_path / "a.png"
    path.write_bytes(png_file((19, 21, 16, colour, 0, 0, int(interlaced)), rows))
    picture = read_image(path)
    assert picture.bits == 16
    np.testing.assert_array_equal(as_array(picture), array)


@pytest.mark.parametrize("bits, level", [(1, 1), (2, 0), (2, 2), (4, 0), (4, 11), (8, 27)])
def test_grey_png_of_few_bits_with_a_transparent_level(
    tmp_path: Path, bits: int, level: int
) -> None:
    grey = np.arange(2**bits).repeat(8 // bits)
    packed = (grey.reshape(-1, 8 // bits) << np.arange(8 - bits, -1, -bits)).sum(1)
    rows = b"\0" + packed.astype(np.uint8).tobytes()
    transparent = chunk(b"tRNS", level.to_bytes(2, "big"))
    (tmp_path / "a.png").write_bytes(png_file((len(grey), 1, bits, 0, 0, 0, 0), rows, transparent))
    expected = np.stack([grey * 255 // (2**bits - 1), (grey != level) * 255], 1)
    np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.png"))[0], expected)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_alpha_of_tiff(tmp_path: Path, planar: str, channels: int, dtype: str) -> None:
    array = levels(channels, 8 if dtype == "u1" else 16)
    top = np.iinfo(array.dtype).max
    array[0, :, -1] = 0
    straight = array if dtype[0] == "u" else (array / top).astype(dtype)
    top = top if dtype[0] == "u" else 1
    alpha = straight[..., -1:].astype(np.float64)
    scaled = straight[..., :-1] * (alpha / top)
    scaled = np.round(scaled) if dtype[0] == "u" else scaled
    premultiplied = np.concatenate([scaled, alpha], 2).astype(dtype)
    for kind, stored in (("unassalpha", straight), ("assocalpha", premultiplied)):
        layout = stored if planar == "contig" else np.moveaxis(stored, 2, 0)
        photometric = "rgb" if channels > 2 else "minisblack"
        data = tiff(layout, photometric=photometric, planarconfig=planar, extrasamples=[kind])
        (tmp_path / "a.tif").write_bytes(data)
        read = as_array(read_image(tmp_path / "a.tif"))
        np.testing.assert_array_equal(read[..., -1:], alpha)
        if kind == "unassalpha":
            np.testing.assert_array_equal(read, straight.astype(np.float64))
        else:  # the product was rounded, by half a level
            half = 0.5 if dtype[0] == "u" else 1e-7
            error = np.abs(read[..., :-1] - straight[..., :-1]) * alpha / top
            assert (error <= half + alpha / top).all()
            assert (read[0, :, :-1] == 0).all()


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
