"""Image files and masks of unusual kinds on the command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import genprior, levels, photo, refused, save_photo, succeed

HQS = ["--solver", "hqs", "--steps", 1]
PAINTED = np.zeros((24, 32), bool)
PAINTED[8:12, 9:20] = True


def mask(path: Path, grey: int, alpha: np.ndarray | int) -> Path:
    shape = (*PAINTED.shape, 1)
    colours = np.broadcast_to(np.uint8(grey), (*PAINTED.shape, 3))
    Image.fromarray(np.dstack([colours, np.broadcast_to(alpha, shape[:2])]).astype(np.uint8)).save(
        path
    )
    return path


@pytest.mark.parametrize("grey", [0, 255])
def test_the_rule_of_a_mask_with_transparency_is_told(
    tmp_path: Path, weights: Path, grey: int
) -> None:
    image = save_photo(tmp_path / "a.png")
    strokes = mask(tmp_path / "m.png", grey, PAINTED * 255)
    words = ["inpaint", image, image, "--mask", strokes, "--prior", weights, *HQS]
    result = succeed(*words[:2], *words[3:])
    told = f"mask {strokes}: it has a single colour, so painted pixels are filled in"
    assert result.stderr.count(told) == 1
    written = levels(tmp_path / "a.genprior.png")
    np.testing.assert_array_equal(written[~PAINTED], photo()[~PAINTED])
    assert (written != photo())[PAINTED].any()
    quiet = succeed(*words[:2], *words[3:], "--quiet", "--overwrite")
    assert quiet.stderr == ""
    code, message = refused("degrade", "inpaint", image, "-o", tmp_path / "b.png", "--mask",
                            mask(tmp_path / "empty.png", grey, 0))
    assert code == 3 and "nothing is missing in the mask" in message


@pytest.mark.parametrize("name", ["c.jfif", "c.JPE", "c.JPEG"])
def test_jpeg_of_all_suffixes_is_restored(tmp_path: Path, weights: Path, name: str) -> None:
    Image.fromarray(photo()).save(tmp_path / name, "JPEG")
    words = ["denoise", "--noise", 0.1, "--prior", weights, *HQS]
    succeed(*words, tmp_path / name)
    succeed(*words, tmp_path, "--overwrite")
    stem, suffix = name.split(".")
    with Image.open(tmp_path / f"{stem}.genprior.{suffix}") as image:
        assert image.format == "JPEG"


def test_devices_are_refused(tmp_path: Path, weights: Path) -> None:
    image = save_photo(tmp_path / "a.png")
    for words in (["inpaint", image, "--mask", "/dev/zero"],
                  ["deblur", image, "--kernel", "/dev/zero"],
                  ["denoise", image, "--noise", 0.1, "--prior", "texture", "--exemplar",
                   "/dev/zero"]):
        result = genprior(*words, *([] if "texture" in words else ["--prior", weights, *HQS]))
        assert result.exit_code == 3 and "is a device, not an image file" in result.stderr
