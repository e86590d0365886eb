"""The table of file kinds in docs/files.md against the files that are written."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import chunk, encoded, npy, png, png_file, tiff
from PIL import Image, ImageCms, PngImagePlugin, features
from repository import ROOT
from shell import genprior, photo

from genprior.cli import main
from genprior.core.errors import exit_code

DOCS = ROOT / "docs" / "files.md"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR, GREY = photo(), photo(1)
DEEP = COLOUR.astype(np.uint16) * 257
RGBA = np.dstack([COLOUR, GREY])
FLOAT = (COLOUR / 255).astype(np.float32)


def exif(**tags: int) -> Image.Exif:
    block = Image.Exif()
    block[0x010F] = "A camera"
    if "orientation" in tags:
        block[0x0112] = tags["orientation"]
    return block


def text() -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Title", "A title")
    return chunks


DPI = {"dpi": (300, 300)}
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
TILE = {"tile": (2048, 2048), "compression": "zlib", "photometric": "minisblack"}
KINDS: dict[str, Callable[[], bytes]] = {
    "PNG, 8 bits, grey": lambda: encoded("PNG", GREY),
    "PNG, 8 bits, RGB": lambda: encoded(
        "PNG", COLOUR, icc_profile=PROFILE, exif=exif(), pnginfo=text(), **DPI
    ),
    "PNG, 8 bits, RGBA": lambda: encoded("PNG", RGBA, icc_profile=PROFILE, exif=exif()),
    "PNG, palette": lambda: encoded("PNG", COLOUR, "P"),
    "PNG, palette with a transparent colour": lambda: encoded("PNG", COLOUR, "P", transparency=3),
    "PNG, 1 bit": lambda: encoded("PNG", GREY, "1"),
    "PNG, 4 bits, grey, with a transparent level": lambda: png_file(
        (10, 9, 4, 0, 0, 0, 0), b"\0\x01\x23\x45\x67\x89" * 9, chunk(b"tRNS", b"\0\7")
    ),
    "PNG, 16 bits, grey": lambda: png(DEEP[..., :1]),
    "PNG, 16 bits, RGB": lambda: png(
        DEEP, b"", chunk(b"pHYs", b"\0\0\x2e\x23" * 2 + b"\1"), chunk(b"tEXt", b"Title\0A title")
    ),
    "PNG, 16 bits, RGBA": lambda: png(np.dstack([DEEP, DEEP[..., 0]])),
    "JPEG, RGB": lambda: encoded(
        "JPEG", COLOUR, icc_profile=PROFILE, exif=exif(orientation=6), comment=b"A title", **DPI
    ),
    "JPEG, grey": lambda: encoded("JPEG", GREY, exif=exif()),
    "JPEG, CMYK": lambda: encoded("JPEG", COLOUR, "CMYK"),
    "WebP, RGB": lambda: encoded("WEBP", COLOUR, icc_profile=PROFILE, exif=exif()),
    "WebP, RGBA": lambda: encoded("WEBP", RGBA),
    "TIFF, 8 bits, RGB": lambda: encoded("TIFF", COLOUR, icc_profile=PROFILE, exif=exif(), **DPI),
    "TIFF, 16 bits, grey": lambda: tiff(DEEP[..., 0], photometric="minisblack"),
    "TIFF, 16 bits, RGB": lambda: tiff(
        DEEP, photometric="rgb", iccprofile=PROFILE, resolution=(300, 300), resolutionunit=2
    ),
    "TIFF, 16 bits, RGB multiplied by alpha": lambda: tiff(
        np.dstack([DEEP, DEEP.max(2)]), photometric="rgb", extrasamples=["assocalpha"]
    ),
    "TIFF, float, RGB": lambda: tiff(FLOAT, photometric="rgb"),
    "BMP, RGB": lambda: encoded("BMP", COLOUR, **DPI),
    "BMP, palette": lambda: encoded("BMP", COLOUR, "P"),
    "NPY, uint8": lambda: npy(COLOUR),
    "NPY, uint16": lambda: npy(DEEP),
    "NPY, bool": lambda: npy(GREY[..., 0] > 100),
    "NPY, float16, float32 or float64": lambda: npy(FLOAT.astype(np.float64)),
    "AVIF, 8 bits, RGB": lambda: encoded("AVIF", COLOUR, icc_profile=PROFILE, exif=exif()),
    "HEIC, without the package pillow-heif": lambda: HEIC,
    "GIF, or another format": lambda: encoded("GIF", GREY),
    "several images in a file": lambda: tiff(
        np.zeros((3, 9, 9), np.uint8), photometric="minisblack"
    ),
    "5 channels": lambda: npy(np.zeros((9, 9, 5), np.uint8)),
    "a fourth TIFF band that is not alpha": lambda: tiff(
        np.dstack([DEEP, DEEP[..., 0]]), photometric="rgb", extrasamples=["unspecified"]
    ),
    "TIFF, inks other than CMYK": lambda: tiff(
        RGBA, photometric="separated", extratags=[(332, 3, 1, 2, True)]
    ),
    "32-bit integers": lambda: tiff(np.zeros((9, 9), np.int32)),
    "TIFF, 8-bit integers with sign": lambda: tiff(np.zeros((9, 9), np.int8)),
    "NaN or infinite numbers": lambda: npy(np.where(FLOAT > 0.5, np.nan, FLOAT)),
    "floats far from [0, 1]": lambda: npy(COLOUR.astype(np.float32)),
    "cut short or damaged": lambda: encoded("PNG", COLOUR)[:300],
    "a suffix of another format": lambda: encoded("JPEG", COLOUR),
    "more pixels than --max-pixels": lambda: encoded("PNG", np.zeros((50, 50, 1), np.uint8)),
    "TIFF, a tile of more than 2^20 and --max-pixels pixels": lambda: tiff(GREY[..., 0], **TILE),
}
SUFFIX = {
    "PNG": "png", "JPE": "jpg", "Web": "webp", "TIF": "tif", "BMP": "bmp", "NPY": "npy",
    "AVI": "avif", "HEI": "heic", "a f": "tif",
}


def table() -> dict[str, tuple[str, str]]:
    """Returns the rows of the table of kinds."""
    rows = {}
    for line in DOCS.read_text().split("<!-- kinds -->")[1].splitlines():
        if line.startswith("| ") and not line.startswith("| file"):
            kind, out, kept = (cell.strip() for cell in line.strip("|").split("|"))
            rows[kind] = out, kept
    return rows


def describe(path: Path) -> tuple[str, str]:
    """Describes a file in the words of the table, read by other libraries."""
    data = path.read_bytes()
    if path.suffix == ".npy":
        return f"NPY, {np.load(path).dtype}", ""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            kind, mode = page.dtype, {1: "grey", 3: "RGB", 4: "RGBA"}[page.samplesperpixel]
        if kind.kind == "f":  # which Pillow does not open
            return f"TIFF, float, {mode}", ""
    with Image.open(path) as image:
        format, mode = {"WEBP": "WebP"}.get(image.format, image.format), image.mode
        kept = [name for name, there in (
            ("ICC", image.info.get("icc_profile") == PROFILE),
            ("EXIF", image.getexif().get(0x010F) == "A camera" and 0x0112 not in image.getexif()),
            ("dpi", tuple(map(round, image.info.get("dpi", ()))) == (300, 300)),
            ("text", getattr(image, "text", {}) == {"Title": "A title"}),
            ("comment", image.info.get("comment") == b"A title"),
        ) if there]
    bits = 8
    if format in ("TIFF", "PNG"):
        bits = 8 * kind.itemsize if format == "TIFF" else data[24]
    colours = {"L": "grey", "I;16": "grey", "LA": "grey and alpha"}.get(mode, mode)
    return f"{format}, {bits} bits, {colours}", ", ".join(kept)


def test_the_table_has_a_row_for_every_kind() -> None:
    assert list(table()) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_written_files_are_those_of_the_docs(
    tmp_path: Path, weights: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind.startswith("AVIF") and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / f"a.{SUFFIX.get(kind[:3], 'png')}"
    if kind in ("several images in a file", "32-bit integers"):
        path = path.with_suffix(".tif")
    if kind.startswith(("5 ", "NaN", "floats")):
        path = path.with_suffix(".npy")
    path.write_bytes(KINDS[kind]())
    options = ["--prior", weights, "--solver", "hqs", "--steps", 1, "--max-pixels", 2000]
    result = genprior("inpaint", path, "--mask", "box=3x4", *options)
    out, kept = table()[kind]
    if out == "refused":
        assert result.exit_code == 3 and kept in result.stderr
        assert list(tmp_path.iterdir()) == [path]
        return
    assert result.exit_code == 0, result.output
    written = tmp_path / f"a.genprior{path.suffix.replace('.avif', '.png')}"
    assert describe(written) == (out, kept)


def test_exit_codes_are_those_of_the_docs() -> None:
    from genprior.core import errors

    codes = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    text = DOCS.read_text()
    for code in (0, *codes.values()):
        assert f"| {code} | " in text
    assert exit_code(errors.SomeFailed()) == 6


def test_options_of_the_docs_exist() -> None:
    known = {
        name for command in main.commands.values()
        for option in command.params for name in option.opts
    }
    named = {word.strip("`.,;:)") for word in DOCS.read_text().split() if word.startswith("`--")}
    assert named and named <= known
