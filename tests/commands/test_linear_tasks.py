"""genprior colorize, demosaic, compressed-sensing, superres --kernel, and laws of noise."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import levels, refused, save_photo, sidecar, succeed

from genprior.api.restoration import degrade
from genprior.operators.colour import Luminance, Mosaic


@pytest.fixture
def quick(weights: Path) -> list[object]:
    return ["--prior", weights, "--steps", 2]


def test_grey_images_get_colours(tmp_path: Path, quick: list) -> None:
    file, grey = save_photo(tmp_path / "a.png"), tmp_path / "grey.png"
    succeed("degrade", "colorize", file, "-o", grey)
    assert levels(grey).ndim == 2
    assert np.array_equal(levels(grey), degrade(levels(file), Luminance())[..., 0])
    succeed("colorize", grey, *quick)
    result = levels(tmp_path / "grey.genprior.png")
    assert result.shape == (*levels(grey).shape, 3)
    inside = ((result > 0) & (result < 255)).all(axis=-1)  # others may have been clipped
    error = abs(degrade(result, Luminance())[..., 0].astype(int) - levels(grey))
    assert inside.mean() > 0.1 and error[inside].max() <= 1
    succeed("colorize", file, *quick, "--samples", 2, "--save", "samples")
    assert sidecar(tmp_path / "a.genprior.png")["samples"] == 2


def test_the_mosaic_of_a_sensor_gets_colours(tmp_path: Path, quick: list) -> None:
    file, raw = save_photo(tmp_path / "a.png"), tmp_path / "raw.png"
    succeed("degrade", "demosaic", file, "-o", raw, "--pattern", "GRBG")
    assert np.array_equal(levels(raw), degrade(levels(file), Mosaic("GRBG"))[..., 0])
    succeed("demosaic", raw, *quick, "--pattern", "GRBG")
    result, record = levels(tmp_path / "raw.genprior.png"), sidecar(tmp_path / "raw.genprior.png")
    assert np.array_equal(degrade(result, Mosaic("GRBG"))[..., 0], levels(raw))
    assert record["operator"] == {"pattern": "GRBG"} and record["task"] == "demosaic"


def test_coefficients_of_compressed_sensing_are_an_array(tmp_path: Path, quick: list) -> None:
    file, y = save_photo(tmp_path / "a.png"), tmp_path / "y.npy"
    succeed("degrade", "compressed-sensing", file, "-o", y, "--ratio", 0.9)
    assert np.load(y).min() < -0.1
    succeed("compressed-sensing", y, *quick, "--ratio", 0.9, "--noise", 0, "-o",
            tmp_path / "x.png")
    error = levels(tmp_path / "x.png").astype(float) - levels(file)
    assert (error**2).mean() ** 0.5 < 30
    code, line = refused("degrade", "compressed-sensing", file, "-o", tmp_path / "y.png",
                         "--ratio", 0.5)
    assert code == 2 and "give -o the name of an NPY file" in line


def test_superres_takes_any_kernel(tmp_path: Path, quick: list) -> None:
    file, kernel = save_photo(tmp_path / "a.png"), tmp_path / "k.npy"
    np.save(kernel, np.array([[1.0, 2, 0], [0, 3, 1], [1, 0, 0.5]]))
    succeed("degrade", "superres", file, "-o", tmp_path / "small.png", "--kernel", kernel)
    succeed("superres", tmp_path / "small.png", *quick, "--kernel", kernel)
    assert levels(tmp_path / "small.genprior.png").shape == levels(file).shape
    code, line = refused("superres", file, *quick, "--kernel", kernel, "--filter", "box")
    assert code == 2 and "--kernel replaces --filter and --std" in line
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "black.png")
    _, line = refused("superres", file, *quick, "--kernel", tmp_path / "black.png")
    assert "black.png: a blur kernel must not sum to 0" in line


def test_noise_may_be_given_as_a_law(tmp_path: Path, quick: list) -> None:
    file, noisy = save_photo(tmp_path / "a.png"), tmp_path / "noisy.png"
    succeed("degrade", "denoise", file, "-o", noisy, "--noise", "poisson=8")
    told = succeed("denoise", noisy, *quick[:2], "--noise", "poisson=8").stdout
    assert "[posterior-mean, noise poisson=8, 6 NFE, " in told
    record = sidecar(tmp_path / "noisy.genprior.png")
    assert record["noise"] == "poisson=8" and record["noise_estimated"] is False
    told = succeed("denoise", file, *quick[:2], "--degrade", "--noise", "correlated=0.05,3",
                   "-o", tmp_path / "b.png").stdout
    assert "noise correlated=0.05,3, " in told
    code, line = refused("denoise", file, *quick[:2], "--noise", "poisson=-1")
    assert code == 2 and "peak must be > 0 and finite, got -1" in line


def test_every_task_and_law_is_evaluated(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "photos").mkdir()
    save_photo(tmp_path / "photos" / "a.png")
    kernel = tmp_path / "k.npy"
    np.save(kernel, np.ones((3, 2)))
    tasks = {
        "colorize": "grey", "demosaic": "malvar", "compressed-sensing:ratio=0.5": "tv",
        f"superres:factor=2,kernel={kernel}": "bicubic", "dejpeg:jpeg-quality=20": "measurement",
        "denoise:noise=poisson=10": "anscombe", "denoise:noise=signal=0.01,0.001": "nlm",
        "denoise:noise=correlated=0.05,3": "nlm",
        "deblur:gaussian=1,noise=poisson=50": "richardson-lucy",
    }
    out = tmp_path / "out"
    succeed("evaluate", tmp_path / "photos", "-o", out, "--prior", weights, "--steps", 2,
            "--crop", 20, "--baseline", ",".join(dict.fromkeys(tasks.values())), "-q",
            *(word for task in tasks for word in ("--task", task)))
    lines = (out / "results.jsonl").read_text().splitlines()
    found = {(row["task"], row["method"]): row for row in map(json.loads, lines)}
    for task, baseline in tasks.items():
        assert found[task, baseline]["psnr"] > 5, (task, baseline)
        assert found[task, f"{weights} auto"]["psnr"] > 5, task
