import io
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded
from PIL import Image

from genprior.io.images import parse_image, read_image, write_image
from genprior.io.jpeg_coding import read_coding


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_tables_and_sampling_are_those_that_were_written(sampling: str) -> None:
    data = encoded("JPEG", quality=30, subsampling=sampling)
    coding = parse_image(data, Path("a.jpg")).coding
    stored = Image.open(io.BytesIO(data)).quantization
    assert coding.tables == (tuple(stored[0]), tuple(stored[1]))
    assert (coding.sampling, coding.orientation) == (sampling, 1)


def test_grey_files_have_one_table() -> None:
    coding = parse_image(encoded("JPEG", mode="L", quality=30), Path("a.jpg")).coding
    assert len(coding.tables) == 1 and coding.sampling == "4:4:4"


def test_the_orientation_is_told() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    coding = parse_image(encoded("JPEG", exif=exif.tobytes()), Path("a.jpg")).coding
    assert coding.orientation == 6


def test_files_without_luma_are_named() -> None:
    image = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    for picture, options, name in (
        (image, {"keep_rgb": True}, "RGB"), (image.convert("CMYK"), {}, "CMYK")
    ):
        file = io.BytesIO()
        picture.save(file, "JPEG", **options)
        assert read_coding(Image.open(io.BytesIO(file.getvalue()))).sampling == name


def test_other_formats_have_no_coding(tmp_path: Path) -> None:
    assert parse_image(encoded("PNG"), Path("a.png")).coding is None
    image = parse_image(encoded("JPEG"), Path("a.jpg"))
    write_image(tmp_path / "b.png", image.pixels, image)
    assert read_image(tmp_path / "b.png").coding is None
