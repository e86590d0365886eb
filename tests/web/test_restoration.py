"""Restoration for the page, against the restoring commands."""

import io
import shlex
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tifffile
from PIL import Image
from shell import photo, succeed
from webpage import file_of

from genprior.io.images import read_image
from genprior.web.restoration import Restorer, Settings, command_line

HOLE = np.zeros((24, 32), np.uint8)
HOLE[8:15, 9:20] = 255


def restorer(weights: Path) -> Restorer:
    return Restorer({"tiny": str(weights), "texture": "texture"}, "cpu", 10_000)


def settings(tool: str, **more) -> Settings:
    given = {"tool": tool, "name": "photo.png", "prior": "tiny", "noise": 0.1} | more
    return msgspec.convert(given, Settings)


def tiff_16() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, photo().astype(np.uint16) * 257, photometric="rgb")
    return file.getvalue()


def transparent() -> np.ndarray:
    return np.dstack([photo(), 255 - HOLE])


FILES = {
    "png": lambda: file_of(photo()),
    "grey.png": lambda: file_of(photo(1)[:, :, 0]),
    "jpg": lambda: file_of(photo(), "JPEG"),
    "tif": tiff_16,
    "alpha.png": lambda: file_of(transparent()),
}
CASES = [
    ("png", {"tool": "inpaint", "noise": 0.0, "steps": 2, "solver": "hqs"}),
    ("jpg", {"tool": "inpaint", "noise": 0.0, "steps": 2, "samples": 2, "seed": 3}),
    ("alpha.png", {"tool": "inpaint", "noise": 0.0, "steps": 2}),
    ("grey.png", {"tool": "inpaint", "noise": 0.0, "prior": "texture"}),
    ("tif", {"tool": "denoise"}),
    ("png", {"tool": "denoise", "noise": 0.1, "quality": "fast"}),
    ("png", {"tool": "denoise", "noise": "auto"}),
    ("png", {"tool": "deblur", "steps": 2, "std": 1.2}),
    ("png", {"tool": "deblur", "steps": 2, "blur": "motion", "length": 5, "angle": 30}),
    ("jpg", {"tool": "superres", "steps": 2, "factor": 3, "noise": 0.02}),
]


@pytest.mark.parametrize(("suffix", "given"), CASES)
def test_the_command_line_gives_the_same_bytes(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, given: dict
) -> None:
    name, data = f"my photo.{suffix}", FILES[suffix]()
    (tmp_path / name).write_bytes(data)
    parts = {"image": data}
    if given["tool"] == "inpaint":
        parts["mask"] = file_of(HOLE)
        (tmp_path / f"{Path(name).stem}.mask.png").write_bytes(parts["mask"])
    steps = []
    about, files = restorer(weights).restore(
        settings(**{"name": f"C:\\photos\\{name}"} | given), parts,
        lambda done, total: steps.append((done, total)),
    )
    monkeypatch.chdir(tmp_path)
    words = shlex.split(about["command"])
    assert words[0] == "genprior"
    succeed(*words[1:])
    made = f"{Path(name).stem}.genprior"
    suffix = Path(name).suffix
    assert files["file-0"] == Path(made + suffix).read_bytes()
    if given.get("samples"):
        assert files["shown-2"] == Path(f"{made}.sample-01.png").read_bytes()
    if given.get("prior") != "texture":
        assert steps[-1][0] == steps[-1][1] > 0


def test_known_pixels_are_kept_and_the_std_is_that_of_the_samples(weights: Path) -> None:
    parts = {"image": file_of(photo(), "JPEG"), "mask": file_of(HOLE)}
    about, files = restorer(weights).restore(
        settings("inpaint", noise=0.0, steps=2, samples=2), parts, lambda done, total: None
    )
    original = np.asarray(Image.open(io.BytesIO(parts["image"])))
    samples = []
    for k in range(3):
        with Image.open(io.BytesIO(files[f"shown-{k}"])) as image:
            array = np.asarray(image)
        np.testing.assert_array_equal(array[HOLE == 0], original[HOLE == 0])
        samples.append(array / 255)
        assert Image.open(io.BytesIO(files[f"file-{k}"])).format == "JPEG"
    std = np.frombuffer(files["std"], "<u2").reshape(24, 32) * about["std_unit"]
    assert (std[HOLE == 0] == 0).all() and (std[HOLE > 0] > 0).all()
    # The samples are rounded to 8 bits, and clipped where they reach 0 or 1.
    drawn = np.stack(samples[1:])
    free = (drawn.min((0, 3)) > 0) & (drawn.max((0, 3)) < 1) & (HOLE > 0)
    expected = drawn.var(axis=0, ddof=1).mean(-1) ** 0.5
    assert free.any()
    np.testing.assert_allclose(std[free], expected[free], atol=1 / 255)
    assert any("known pixels change in a JPEG file" in text for text in about["warnings"])


def test_transparent_pixels_are_the_first_hole(weights: Path) -> None:
    about, parts = restorer(weights).open(file_of(transparent()))
    with Image.open(io.BytesIO(parts["hole"])) as hole:
        np.testing.assert_array_equal(np.asarray(hole), HOLE)
    assert (about["width"], about["height"], about["channels"]) == (32, 24, 3)
    more = HOLE.copy()
    more[0] = 255
    _, files = restorer(weights).restore(
        settings("inpaint", noise=0.0, steps=2),
        {"image": file_of(transparent()), "mask": file_of(more)}, lambda done, total: None,
    )
    with Image.open(io.BytesIO(files["file-0"])) as image:
        assert image.mode == "RGBA" and (np.asarray(image)[..., 3] == 255).all()


def test_an_upright_image_is_shown_and_restored(tmp_path: Path, weights: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(photo()).save(file, "JPEG", exif=exif)
    about, parts = restorer(weights).open(file.getvalue())
    assert (about["width"], about["height"]) == (24, 32)
    (tmp_path / "a.png").write_bytes(parts["image"])
    assert read_image(tmp_path / "a.png").pixels.shape == (1, 3, 32, 24)


@pytest.mark.parametrize(
    ("parts", "given", "message"),
    [
        ({}, {}, "must have the parts image"),
        ({"image": b"x", "path": b"/etc/passwd"}, {}, "must have the parts image"),
        ({"image": b"/etc/passwd"}, {}, "not an image"),
        ({"image": b"http://127.0.0.1/a.png"}, {}, "not an image"),
        ({"image": file_of(photo())}, {"tool": "inpaint"}, "paint over the pixels"),
        ({"image": file_of(photo()), "mask": file_of(HOLE[:5])}, {"tool": "inpaint"},
         "must have the size of the image"),
        ({"image": file_of(photo()), "mask": file_of(0 * HOLE)}, {"tool": "inpaint"},
         "no pixel is marked"),
        ({"image": file_of(photo()), "mask": file_of(0 * HOLE + 255)}, {"tool": "inpaint"},
         "all pixels are marked"),
        ({"image": file_of(photo())}, {"prior": "/etc"}, "unknown prior '/etc'"),
        ({"image": file_of(photo())}, {"prior": "texture"}, "for inpainting"),
        ({"image": file_of(photo())}, {"solver": "none"}, "unknown solver 'none'"),
        ({"image": file_of(np.zeros((101, 100), np.uint8))}, {}, "more than 10000"),
    ],
)
def test_what_cannot_be_restored_is_said(
    weights: Path, parts: dict, given: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        restorer(weights).restore(
            settings(**{"tool": "denoise"} | given), parts, lambda done, total: None
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "passwd.png"), ("-rf.png", "./-rf.png"), ("a b.png", "'a b.png'"),
        ("$(reboot).png", "'$(reboot).png'"), ("a\n;b.png", "'a;b.png'"), ("/", "image.png"),
        ("x.jpg", "x.jpg.png"),
    ],
)
def test_names_are_harmless_in_the_command(name: str, expected: str) -> None:
    text = command_line(settings("denoise", name=name, noise="auto"), "PNG", "ddpm", False)
    assert text == f"genprior denoise {expected}"


def test_choices_are_those_that_work(weights: Path) -> None:
    choices = restorer(weights).choices()
    tiny, texture = choices["priors"]
    assert texture["tools"] == ["inpaint"] and "gaussian" in texture["solvers"]
    assert {"hqs", "dps", "moment-matched"} <= set(tiny["solvers"])
    assert not {"gaussian", "csgm"} & set(tiny["solvers"])
    assert not choices["solvers"]["hqs"]["stochastic"]
