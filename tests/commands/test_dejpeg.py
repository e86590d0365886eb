"""genprior dejpeg on JPEG files, on images that were JPEG, and on others."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import genprior, levels, refused, sidecar, succeed
from skimage import data

from genprior.operators.jpeg_tables import standard_tables

SIZE = (48, 64)


@pytest.fixture
def quick(weights: Path) -> list[object]:
    return ["--prior", weights, "--steps", 2]


def clean(path: Path, size: tuple[int, int] = SIZE, **about: object) -> Path:
    Image.fromarray(data.astronaut()[: size[0], 160 : 160 + size[1]]).save(path, **about)
    return path


def saved_again(path: Path, quality: int) -> Path:
    file = clean(path.with_name("first.jpg"), (96, 128), quality=quality)
    Image.open(file).save(path)
    file.unlink()
    return path


def test_a_jpeg_file_tells_its_tables(tmp_path: Path, quick: list) -> None:
    file = clean(tmp_path / "a.jpg", quality=20, subsampling="4:2:0")
    result = succeed("dejpeg", file, *quick)
    output = tmp_path / "a.genprior.jpg"
    assert result.stdout.startswith(f"{file} -> {output} [dithered-mean, noise 0, 2 NFE, ")
    assert levels(output).shape == (*SIZE, 3)
    record = sidecar(output)
    assert record["task"] == "dejpeg"
    assert record["operator"] == {"jpeg_quality": "auto", "sampling": "auto"}
    tables = standard_tables(20).flatten(1).int().tolist()
    assert record["jpeg"] == {
        "tables": tables, "sampling": "4:2:0", "offset": [0, 0], "orientation": 1
    }


def test_the_quality_of_an_image_that_was_jpeg_is_estimated(tmp_path: Path, quick: list) -> None:
    file = saved_again(tmp_path / "a.png", 30)
    succeed("dejpeg", file, *quick)
    record = sidecar(tmp_path / "a.genprior.png")
    assert record["jpeg"]["tables"] == standard_tables(30).flatten(1).int().tolist()
    assert record["jpeg"]["sampling"] == "4:2:0"
    assert record["warnings"] == []
    succeed("dejpeg", file, *quick, "--jpeg-quality", 5, "--overwrite")
    record = sidecar(tmp_path / "a.genprior.png")
    assert record["jpeg"]["tables"] == standard_tables(5).flatten(1).int().tolist()
    assert "are not what these JPEG tables give" in record["warnings"][0]


def test_an_image_that_never_was_jpeg_is_refused_in_one_line(tmp_path: Path, quick: list) -> None:
    file = clean(tmp_path / "a.png")
    code, line = refused("dejpeg", file, *quick)
    assert code == 3
    assert line == (
        f"genprior: {file}: is no JPEG file and shows no trace of JPEG compression, so there is "
        f"nothing to undo; if it was one, give its --jpeg-quality\n"
    )


def test_a_folder_of_files_of_different_quality(tmp_path: Path, quick: list) -> None:
    for quality in (20, 50):
        clean(tmp_path / f"{quality}.jpg", quality=quality)
    clean(tmp_path / "none.png")
    result = genprior("dejpeg", tmp_path, *quick)
    assert result.exit_code == 6 and "none.png" in result.stderr
    for quality in (20, 50):
        record = sidecar(tmp_path / f"{quality}.genprior.jpg")
        assert record["jpeg"]["tables"] == standard_tables(quality).flatten(1).int().tolist()


def test_a_turned_photo_is_restored_upright(tmp_path: Path, quick: list) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = clean(tmp_path / "a.jpg", quality=20, exif=exif.tobytes())
    succeed("dejpeg", file, *quick, "--ext", "png")
    record = sidecar(tmp_path / "a.genprior.png")
    assert record["jpeg"]["orientation"] == 6 and record["warnings"] == []
    assert levels(tmp_path / "a.genprior.png").shape == (SIZE[1], SIZE[0], 3)


def test_degrade_compresses_first(tmp_path: Path, quick: list) -> None:
    file = clean(tmp_path / "a.png")
    succeed("dejpeg", file, *quick, "--degrade", "--jpeg-quality", 20)
    record = sidecar(tmp_path / "a.genprior.png")
    assert {"psnr", "psnr_measurement"} <= set(record)
    code, line = refused("dejpeg", file, *quick, "--degrade", "--overwrite")
    assert code == 2
    assert line.startswith("genprior: --degrade compresses the image first: give --jpeg-quality")


def test_degrade_command(tmp_path: Path) -> None:
    file, out = clean(tmp_path / "a.png"), tmp_path / "b.png"
    succeed("degrade", "dejpeg", file, "--jpeg-quality", 20, "-o", out)
    Image.open(file).save(tmp_path / "c.jpg", quality=20, subsampling="4:2:0")
    expected = levels(tmp_path / "c.jpg").astype(int)
    assert (np.abs(levels(out).astype(int) - expected) <= 2).mean() > 0.85


@pytest.mark.parametrize(("words", "message"), [
    (["--noise", 0.1], "JPEG takes no noise level"),
    (["--noise", "auto"], "the error of JPEG is that of rounding"),
    (["--jpeg-quality", 0], "1<=x<=100"),
    (["--solver", "dps"], "needs an operator with a gradient, and JPEG has none"),
])
def test_what_does_not_fit_is_refused(tmp_path: Path, quick: list, words: list, message: str
                                      ) -> None:
    code, line = refused("dejpeg", clean(tmp_path / "a.jpg", quality=20), *quick, *words)
    assert code == 2 and message in line
    assert not (tmp_path / "a.genprior.jpg").exists()


def test_other_colours_are_refused(tmp_path: Path, quick: list) -> None:
    file = clean(tmp_path / "a.jpg", quality=20, keep_rgb=True)
    code, line = refused("dejpeg", file, *quick)
    assert code == 3 and "its colours are stored as RGB" in line


def test_evaluate(tmp_path: Path, weights: Path) -> None:
    clean(tmp_path / "a.png")
    succeed("evaluate", tmp_path, "-o", tmp_path / "out", "--task", "dejpeg:jpeg-quality=20",
            "--prior", weights, "--solver", "dithered-mean:steps=2", "--baseline",
            "measurement,tv", "--show", 0)
    report = (tmp_path / "out" / "report.md").read_text()
    names = "dejpeg:jpeg-quality=20", "dithered-mean", "measurement"
    assert all(name in report for name in names)
