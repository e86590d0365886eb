"""Image files after writing and reading: bits, alpha, orientation, profile, EXIF. Masks."""

import io
import os
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import as_array, as_picture, encoded, levels, pillow
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin, features

from genprior.io.images import (
    ImageError,
    ImageFile,
    image_files,
    read_image,
    read_mask,
    read_size,
    write_image,
)

LOSSLESS = [".png", ".tif", ".webp", ".bmp", ".npy"]
SHAPES = {"L": (1,), "LA": (2,), "RGB": (3,), "RGBA": (4,)}
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("bits", [8, 16])
def test_round_trips_are_exact(tmp_path: Path, suffix: str, kind: str, bits: int) -> None:
    if (bits == 16 and suffix in (".webp", ".bmp")) or ("A" in kind and suffix == ".bmp"):
        pytest.skip("the format does not hold it")
    array = levels(*SHAPES[kind], bits)
    path = tmp_path / f"a{suffix}"
    write_image(path, as_picture(array))
    first = read_image(path)
    assert first.bits == bits
    expected = array
    if suffix == ".webp" and kind in ("L", "LA"):  # WebP has no grey
        expected = np.concatenate([array[..., :1]] * 3 + [array[..., 1:]], 2)
    np.testing.assert_array_equal(as_array(first), expected)
    write_image(path, first)
    np.testing.assert_array_equal(as_array(read_image(path)), expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_every_level_survives(tmp_path: Path, bits: int, suffix: str) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    array = np.arange(2**bits, dtype=dtype).reshape(2 ** (bits // 2), -1, 1)
    write_image(tmp_path / f"a{suffix}", as_picture(array))
    np.testing.assert_array_equal(as_array(read_image(tmp_path / f"a{suffix}")), array)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp"])
def test_8_bits_are_read_and_written_as_by_pillow(tmp_path: Path, suffix: str, kind: str) -> None:
    if suffix == ".bmp" and "A" in kind:
        pytest.skip("BMP holds no alpha")
    array = levels(*SHAPES[kind], 8)
    path = tmp_path / f"a{suffix}"
    pillow(array).save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    with Image.open(path) as image:
        expected = np.asarray(image).reshape(7, 9, -1)
    np.testing.assert_array_equal(as_array(read_image(path)), expected)
    write_image(path, as_picture(array))
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(7, 9, -1), expected)


def test_written_16_bit_png_is_read_by_pillow(tmp_path: Path) -> None:
    array = levels(3, 16)
    write_image(tmp_path / "a.png", as_picture(array))
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        np.testing.assert_array_equal(np.asarray(image), array >> 8)


def test_jpeg(tmp_path: Path) -> None:
    y, x = np.mgrid[:40, :40]
    array = np.stack([x * 6, y * 6, 240 - x * 3 - y * 3], 2).astype(np.uint8)
    write_image(tmp_path / "a.jpg", as_picture(array))
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.jpg")), np.asarray(image))
    assert np.abs(as_array(read_image(tmp_path / "a.jpg")) - array).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["a.png", "a.tif", "deep.png", "deep.tif"])
def test_orientation_is_applied_once(tmp_path: Path, orientation: int, kind: str) -> None:
    path = tmp_path / kind
    array = levels(3, 8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A camera"
    if kind.startswith("deep"):
        write_image(path, replace(as_picture(array.astype(np.uint16) * 257), exif=exif.tobytes()))
        upright = ImageOps.exif_transpose(_with_exif(array, exif))
        expected = np.asarray(upright).astype(np.uint16) * 257
    else:
        pillow(array).save(path, exif=exif)
        with Image.open(path) as image:
            image.load()
            expected = np.asarray(ImageOps.exif_transpose(image))
    picture = read_image(path)
    np.testing.assert_array_equal(as_array(picture), expected)
    write_image(path, picture)
    again = read_image(path)
    np.testing.assert_array_equal(as_array(again), expected)
    for block in (picture.exif, again.exif):
        tags = Image.Exif()
        tags.load(block)
        assert dict(tags) == {0x010F: "A camera"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_a_single_row_is_turned_too(tmp_path: Path, orientation: int, size: tuple) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tif"):
        pillow(levels(3, 8, size)).save(tmp_path / name, exif=exif)
        with Image.open(tmp_path / name) as image:
            image.load()
            expected = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(as_array(read_image(tmp_path / name)), expected)


def test_broken_exif_does_not_lose_the_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72
    pillow(levels(3, 8)).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    number, text = struct.pack(">HH", 0x011A, 5), struct.pack(">HH", 0x011A, 2)
    assert data.count(number) == 1  # a resolution that is text instead of a ratio
    (tmp_path / "b.jpg").write_bytes(data.replace(number, text))
    whole, broken = (read_image(tmp_path / name) for name in ("a.jpg", "b.jpg"))
    assert broken.exif is None and torch.equal(broken.pixels, whole.pixels)


def _with_exif(array: np.ndarray, exif: Image.Exif) -> Image.Image:
    file = io.BytesIO()
    pillow(array).save(file, "PNG", exif=exif)
    return Image.open(file)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_profile_and_exif_are_kept(tmp_path: Path, suffix: str, bits: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x829A] = TiffImagePlugin.IFDRational(1, 250)
    exif.get_ifd(0x8825)[2] = (51.0, 30.0, 26.5)
    pillow(levels(3, 8)).save(tmp_path / "a.jpg", exif=exif, icc_profile=PROFILE)
    picture = replace(read_image(tmp_path / "a.jpg"), bits=bits)
    write_image(tmp_path / f"b{suffix}", picture.pixels, like=picture)
    for name in (f"b{suffix}", f"c{suffix}"):
        with Image.open(tmp_path / name) as image:
            assert image.info["icc_profile"] == PROFILE
            tags = image.getexif()
            assert tags[0x010F] == "A camera"
            assert 0x0112 not in tags
            assert tags.get_ifd(0x8769)[0x829A] == pytest.approx(1 / 250)
            assert tags.get_ifd(0x8825)[2] == (51.0, 30.0, 26.5)
        write_image(tmp_path / f"c{suffix}", read_image(tmp_path / f"b{suffix}"))


def test_rounding_and_clipping(tmp_path: Path) -> None:
    values = torch.tensor([-0.3, 0.49, 0.51, 254.49, 254.51, 300.0]).reshape(1, 1, 6) / 255
    write_image(tmp_path / "a.png", values)
    assert as_array(read_image(tmp_path / "a.png")).ravel().tolist() == [0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_floats_are_written_as_they_are(tmp_path: Path, suffix: str) -> None:
    noisy = torch.tensor([-0.25, 1 / 3, 1.5]).reshape(1, 1, 1, 3)
    write_image(tmp_path / f"a{suffix}", ImageFile(noisy, bits=32))
    assert torch.equal(read_image(tmp_path / f"a{suffix}").pixels, noisy)


def test_numpy_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_image(path, torch.full((3, 4, 5), 1 / 3))
    assert np.load(path).dtype == np.float32
    for array in (levels(3, 16).astype(">u2"), levels(1, 8)[..., 0], levels(1, 8)[..., 0] > 9):
        np.save(path, array)
        full = 1 if array.dtype == bool else np.iinfo(array.dtype).max
        values = read_image(path).pixels[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(values.reshape(array.shape), array / full, atol=1e-7)


def test_like_gives_alpha_bits_and_metadata(tmp_path: Path) -> None:
    like = as_picture(levels(4, 16), icc=PROFILE)
    write_image(tmp_path / "a.png", like.pixels, like=like)
    again = read_image(tmp_path / "a.png")
    assert (again.bits, again.icc) == (16, PROFILE)
    assert torch.equal(again.alpha, like.alpha)
    write_image(tmp_path / "grey.png", like.pixels[:, :1], like=like)
    assert read_image(tmp_path / "grey.png").icc is None
    flat = replace(like, alpha=torch.full_like(like.alpha, 0.25))
    larger = torch.zeros(1, 3, 14, 18)
    write_image(tmp_path / "large.tif", larger, like=flat)
    assert read_image(tmp_path / "large.tif").alpha.numpy() == pytest.approx(0.25, abs=1e-5)
    opaque = replace(like, alpha=torch.ones(1, 1, 7, 9))
    write_image(tmp_path / "opaque.jpg", like.pixels, like=opaque)
    assert read_image(tmp_path / "opaque.jpg").alpha is None


def test_writing_refuses_and_writes_nothing(tmp_path: Path) -> None:
    grey = torch.zeros(1, 4, 4)
    cases = [
        ("a.gif", grey, r"a\.gif: unknown suffix: use one of \.png, .*\.npy"),
        ("a.png", grey / 0, "16 of 16 values are NaN or infinite, nothing is written"),
        ("a.npy", grey / 0, "values are NaN"),
        ("a.png", torch.zeros(2, 1, 4, 4), r"got \[2, 1, 4, 4\]"),
        ("a.jpg", as_picture(levels(4, 8)), r"a\.jpg: JPEG cannot hold transparency: write PNG"),
        ("a.webp", torch.zeros(1, 1, 16384), r"a\.webp: cannot be written as WEBP .*write PNG"),
        ("no/a.png", grey, r"a\.png: cannot be written \(no such file"),
    ]
    for name, image, message in cases:
        with pytest.raises(ImageError, match=message):
            write_image(tmp_path / name, image)
    assert os.listdir(tmp_path) == []


def test_masks(tmp_path: Path) -> None:
    hole = levels(1, 8)[..., 0] > 200
    path = tmp_path / "m.png"

    def check() -> None:
        mask = read_mask(path)
        assert torch.equal(mask.hole[0, 0], torch.from_numpy(hole))
        assert not mask.used_alpha

    Image.fromarray(hole).save(path)
    check()
    Image.fromarray(np.where(hole, 128, 127).astype(np.uint8)).save(path)
    check()
    Image.fromarray(np.where(hole, 60000, 30000).astype(np.uint16)).save(path)
    check()
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.rot90(hole, -1)).save(path, exif=exif)
    check()
    Image.fromarray(np.dstack([hole, hole, hole, hole | True]) * np.uint8(255)).save(path)
    check()
    Image.fromarray(hole.astype(np.uint8)).save(path)
    with pytest.raises(ImageError, match="largest value of the mask is 1, but a hole is white"):
        read_mask(path)


@pytest.mark.parametrize("colour", [0, 70, 255, (200, 30, 30)])
@pytest.mark.parametrize("canvas", [0, 255])
def test_what_is_painted_in_one_colour_is_the_hole(
    tmp_path: Path, colour: int | tuple[int, ...], canvas: int
) -> None:
    alpha = np.linspace(0, 255, 63).round().reshape(7, 9)
    pixels = np.where(alpha[..., None] > 0, np.broadcast_to(colour, (7, 9, 3)), canvas)
    pixels[alpha < 100] = np.maximum(pixels[alpha < 100] - 9, 0)  # rounded by an editor
    Image.fromarray(np.dstack([pixels, alpha]).astype(np.uint8)).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert torch.equal(mask.hole[0, 0], torch.from_numpy(alpha >= 128))
    assert mask.used_alpha and "single colour" in mask.rule


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 4])
def test_grey_counts_by_its_opacity(tmp_path: Path, channels: int, bits: int) -> None:
    array = levels(channels, bits, (40, 40))
    write_image(tmp_path / "m.png", as_picture(array))
    mask = read_mask(tmp_path / "m.png")
    share = array / (2**bits - 1)
    expected = share[..., :-1].mean(2) * share[..., -1] >= 0.5
    assert torch.equal(mask.hole[0, 0], torch.from_numpy(expected))
    assert mask.used_alpha and "transparent ones count as black" in mask.rule


@pytest.mark.parametrize("name", ["a.jfif", "a.jpe", "a.JFIF", "a.JPEG", "a.Jpg"])
def test_all_suffixes_of_jpeg(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, as_picture(levels(3, 8)))
    assert read_image(tmp_path / name).format == "JPEG"
    assert [p.name for p in image_files(tmp_path)] == [name]
    write_image(tmp_path / "b.png", as_picture(levels(3, 8)))
    (tmp_path / "b.png").rename(tmp_path / name)
    with pytest.raises(ImageError, match="holds PNG, not JPEG: rename it to .png"):
        read_image(tmp_path / name)


def media(brand: bytes) -> bytes:
    """Returns the first box of an ISO media file."""
    return struct.pack(">I4s4sI4s", 20, b"ftyp", b"mif1", 0, brand) + bytes(40)


def test_packages_for_heic_and_avif_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    (tmp_path / "a.heic").write_bytes(media(b"heic"))
    (tmp_path / "a.avif").write_bytes(media(b"avif"))
    with pytest.raises(ImageError, match="a.heic: holds HEIF, .* run pip install pillow-heif"):
        read_image(tmp_path / "a.heic")
    with pytest.raises(ImageError, match="a.avif: holds AVIF, .* pip install --upgrade pillow"):
        read_image(tmp_path / "a.avif")
    assert len(image_files(tmp_path)) == 2


@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_avif_and_heic(tmp_path: Path, format: str) -> None:
    if format == "HEIF":
        heif = pytest.importorskip(
            "pillow_heif", reason='pillow-heif is missing: pip install "genprior[heic]"'
        )
        heif.register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    y, x = np.mgrid[:40, :48]
    array = np.stack([x * 5, y * 6, 240 - x * 2 - y * 3], 2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A camera", 6
    data = encoded(format, array, quality=95, icc_profile=PROFILE, exif=exif.tobytes())
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(data)
    picture = read_image(path)
    assert picture.format == format and picture.icc == PROFILE
    upright = np.rot90(array, -1).astype(float)
    assert picture.pixels.shape[2:] == (48, 40) and read_size(path) == (40, 48)
    assert np.abs(as_array(picture) - upright).mean() < 3
    write_image(tmp_path / "b.png", picture.pixels, like=picture)
    with Image.open(tmp_path / "b.png") as image:
        tags = image.getexif()
    assert tags[0x010F] == "A camera" and 0x0112 not in tags
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_image(path)


TEXT = {"Title": "A title", "Comment": "Grüße, 世界", "parameters": "steps: 20\nseed: 1"}


def with_metadata(path: Path, bits: int = 8) -> Path:
    """Writes an image file with a resolution of 300 x 200 dpi, and comments."""
    about = {"dpi": (300, 200)}
    if path.suffix == ".png":
        about["pnginfo"] = PngImagePlugin.PngInfo()
        for keyword, value in TEXT.items():
            about["pnginfo"].add_text(keyword, value, zip=keyword == "parameters")
    if path.suffix == ".jpg":
        about["comment"] = TEXT["Comment"].encode()
    if path.suffix == ".tif":
        about["description"] = TEXT["Title"]
    array = levels(1, bits)
    pillow(array).save(path, **about)
    return path


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("target", ["b.png", "b.jpg", "b.tif", "b.bmp"])
@pytest.mark.parametrize("source", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_resolution_and_comments_are_kept(
    tmp_path: Path, source: str, target: str, bits: int
) -> None:
    if bits == 16 and source in ("a.jpg", "a.bmp"):
        pytest.skip("the format has 8 bits")
    picture = read_image(with_metadata(tmp_path / source, bits))
    write_image(tmp_path / target, picture.pixels, like=picture)
    with Image.open(tmp_path / target) as image:
        image.load()
        assert image.info["dpi"] == pytest.approx((300, 200), abs=0.02)
        if target == "b.png":
            names = {"a.png": TEXT, "a.jpg": ["Comment"]}.get(source, [])
            assert image.text == {name: TEXT[name] for name in names}
        if target == "b.jpg":
            expected = TEXT["Comment"].encode() if source in ("a.png", "a.jpg") else None
            assert image.info.get("comment") == expected
        if source == "a.tif" and target != "b.bmp":
            assert image.getexif()[270] == TEXT["Title"]


def test_a_comment_of_any_bytes_is_kept(tmp_path: Path) -> None:
    comment = bytes(range(1, 256))
    pillow(levels(3, 8)).save(tmp_path / "a.jpg", comment=comment)
    picture = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg", picture.pixels, like=picture)
    write_image(tmp_path / "b.png", picture.pixels, like=picture)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["comment"] == comment
    with Image.open(tmp_path / "b.png") as image:
        assert image.text["Comment"] == comment.decode("latin-1")
    long = replace(picture, text={"Comment": "x" * 70000})
    write_image(tmp_path / "c.jpg", long.pixels, like=long)


def test_files_without_resolution_get_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    for name, bits in (("a.png", 8), ("b.png", 16), ("c.jpg", 8), ("d.tif", 8), ("e.tif", 16)):
        path = tmp_path / name
        pillow(levels(1, bits)).save(path, exif=exif)
        for _ in range(2):
            picture = read_image(path)
            assert picture.dpi is None and picture.text == {}
            write_image(path, picture.pixels, like=picture)


def test_the_orientation_in_text_chunks_is_dropped(tmp_path: Path) -> None:
    about = PngImagePlugin.PngInfo()
    xmp = '<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="One"/></x:xmpmeta>'
    about.add_itxt("XML:com.adobe.xmp", xmp)
    exif = Image.Exif()
    exif[0x0112] = 6
    hexadecimal = exif.tobytes().hex()
    about.add_text("Raw profile type exif", f"\nexif\n{len(hexadecimal) // 2:8}\n{hexadecimal}\n")
    array = levels(3, 8)
    pillow(array).save(tmp_path / "a.png", pnginfo=about)
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(as_array(picture), np.rot90(array, -1))
    write_image(tmp_path / "b.png", picture.pixels, like=picture)
    np.testing.assert_array_equal(as_array(read_image(tmp_path / "b.png")), np.rot90(array, -1))
    with Image.open(tmp_path / "b.png") as image:
        assert list(image.text) == ["XML:com.adobe.xmp"] and "One" in image.text.popitem()[1]


def test_image_files(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", "inner/c.tif", "weights.npy"):
        (tmp_path / name).touch()
    assert [p.name for p in image_files(tmp_path)] == ["a.jpg", "b.PNG"]
    assert [p.name for p in image_files(tmp_path, recursive=True)] == ["a.jpg", "b.PNG", "c.tif"]
