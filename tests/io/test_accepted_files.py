"""The table of file kinds in docs/files.md against the files that are written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import encoded, npy, png, tiff
from PIL import Image, ImageCms
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


KINDS: dict[str, Callable[[], bytes]] = {
    "PNG, 8 bits, grey": lambda: encoded("PNG", GREY),
    "PNG, 8 bits, RGB": lambda: encoded("PNG", COLOUR, icc_profile=PROFILE, exif=exif()),
    "PNG, 8 bits, RGBA": lambda: encoded("PNG", RGBA, icc_profile=PROFILE, exif=exif()),
    "PNG, palette": lambda: encoded("PNG", COLOUR, "P"),
    "PNG, palette with a transparent colour": lambda: encoded("PNG", COLOUR, "P", transparency=3),
    "PNG, 1 bit": lambda: encoded("PNG", GREY, "1"),
    "PNG, 16 bits, grey": lambda: png(DEEP[..., :1]),
    "PNG, 16 bits, RGB": lambda: png(DEEP),
    "PNG, 16 bits, RGBA": lambda: png(np.dstack([DEEP, DEEP[..., 0]])),
    "JPEG, RGB": lambda: encoded("JPEG", COLOUR, icc_profile=PROFILE, exif=exif(orientation=6)),
    "JPEG, grey": lambda: encoded("JPEG", GREY, exif=exif()),
    "JPEG, CMYK": lambda: encoded("JPEG", COLOUR, "CMYK"),
    "WebP, RGB": lambda: encoded("WEBP", COLOUR, icc_profile=PROFILE, exif=exif()),
    "WebP, RGBA": lambda: encoded("WEBP", RGBA),
    "TIFF, 8 bits, RGB": lambda: encoded("TIFF", COLOUR, icc_profile=PROFILE, exif=exif()),
    "TIFF, 16 bits, grey": lambda: tiff(DEEP[..., 0], photometric="minisblack"),
    "TIFF, 16 bits, RGB": lambda: tiff(DEEP, photometric="rgb", iccprofile=PROFILE),
    "TIFF, float, RGB": lambda: tiff(FLOAT, photometric="rgb"),
    "BMP, RGB": lambda: encoded("BMP", COLOUR),
    "BMP, palette": lambda: encoded("BMP", COLOUR, "P"),
    "NPY, uint8": lambda: npy(COLOUR),
    "NPY, uint16": lambda: npy(DEEP),
    "NPY, bool": lambda: npy(GREY[..., 0] > 100),
    "NPY, float16, float32 or float64": lambda: npy(FLOAT.astype(np.float64)),
    "GIF, or another format": lambda: encoded("GIF", GREY),
    "several images in a file": lambda: tiff(
        np.zeros((3, 9, 9), np.uint8), photometric="minisblack"
    ),
    "5 channels": lambda: npy(np.zeros((9, 9, 5), np.uint8)),
    "32-bit integers": lambda: tiff(np.zeros((9, 9), np.int32)),
    "NaN or infinite numbers": lambda: npy(np.where(FLOAT > 0.5, np.nan, FLOAT)),
    "floats far from [0, 1]": lambda: npy(COLOUR.astype(np.float32)),
    "cut short or damaged": lambda: encoded("PNG", COLOUR)[:300],
    "a suffix of another format": lambda: encoded("JPEG", COLOUR),
    "more pixels than --max-pixels": lambda: encoded("PNG", np.zeros((50, 50, 1), np.uint8)),
}
SUFFIX = {"PNG": "png", "JPE": "jpg", "Web": "webp", "TIF": "tif", "BMP": "bmp", "NPY": "npy"}


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
        ) if there]
    bits = 8
    if format in ("TIFF", "PNG"):
        bits = 8 * kind.itemsize if format == "TIFF" else data[24]
    colours = "grey" if mode in ("L", "I;16") else mode
    return f"{format}, {bits} bits, {colours}", ", ".join(kept)


def test_the_table_has_a_row_for_every_kind() -> None:
    assert list(table()) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_written_files_are_those_of_the_docs(tmp_path: Path, weights: Path, kind: str) -> None:
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
    written = tmp_path / f"a.genprior{path.suffix}"
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
        name for command in ("inpaint", "deblur", "superres", "denoise")
        for option in main.commands[command].params for name in option.opts
    }
    named = {word.strip("`.,;:)") for word in DOCS.read_text().split() if word.startswith("`--")}
    assert named and named <= known
