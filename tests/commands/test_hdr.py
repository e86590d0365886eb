"""genprior hdr on over-exposed images, and tasks of evaluate that are not linear."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import levels, refused, sidecar, succeed
from skimage import data

SIZE = (32, 40)


@pytest.fixture
def quick(weights: Path) -> list[object]:
    return ["--prior", weights, "--steps", 3]


def clean(path: Path) -> Path:
    Image.fromarray(data.astronaut()[: SIZE[0], 160 : 160 + SIZE[1]]).save(path)
    return path


def test_pixels_that_are_not_clipped_are_only_darker(tmp_path: Path, quick: list) -> None:
    file = tmp_path / "a.png"
    crop = data.astronaut()[: SIZE[0], 160 : 160 + SIZE[1]]
    Image.fromarray(np.minimum(2 * crop.astype(int), 255).astype(np.uint8)).save(file)
    result = succeed("hdr", file, "--factor", 2, *quick)
    output = tmp_path / "a.genprior.png"
    assert result.stdout.startswith(f"{file} -> {output} [hqs, noise 0, 3 NFE, ")
    before, after = levels(file).astype(int), levels(output).astype(int)
    known = before < 250
    assert known.any() and (~known).any()
    assert np.abs(after[known] - before[known] / 2).max() <= 1
    assert after[~known].min() >= 124
    record = sidecar(output)
    assert record["task"] == "hdr" and record["warnings"] == []
    assert record["operator"] == {"factor": 2.0, "pivot": 0.0, "white": "auto"}


def test_degrade_then_restore(tmp_path: Path, quick: list) -> None:
    file, bright = clean(tmp_path / "a.png"), tmp_path / "bright.png"
    succeed("degrade", "hdr", file, "--factor", 1.5, "-o", bright)
    expected = np.minimum(np.round(levels(file) * 1.5), 255)
    assert np.abs(levels(bright).astype(int) - expected).max() <= 1
    succeed("hdr", file, "--degrade", "--factor", 1.5, *quick)
    assert {"psnr", "psnr_measurement"} <= set(sidecar(tmp_path / "a.genprior.png"))
    succeed("hdr", bright, "--factor", 1.5, "--samples", 2, *quick, "--solver", "diffpir")


@pytest.mark.parametrize(("words", "message"), [
    (["--factor", 1], "1.0 is not in the range x>1"),
    (["--pivot", 0.5, "--white", 0.4], "--white 0.4 must be above --pivot 0.5"),
    (["--white", 0], "0.0 is not in the range 0<x<=1"),
    (["--noise", "auto"], "cannot be estimated from a measurement by Clipping, which is not lin"),
    (["--solver", "ddrm"], "needs a linear operator, and Clipping is not: choose dps, daps"),
])
def test_what_does_not_fit_is_refused(tmp_path: Path, quick: list, words: list, message: str
                                      ) -> None:
    code, line = refused("hdr", clean(tmp_path / "a.png"), *quick, *words)
    assert code == 2 and message in line
    assert not (tmp_path / "a.genprior.png").exists()


def test_evaluate_knows_the_tasks(tmp_path: Path, weights: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    clean(folder / "a.png")
    tasks = ["hdr:factor=2,pivot=0.5,noise=0.025", "phase:oversampling=1.5,noise=0.05",
             "phase:masks=3", "gamma", "quantise:levels=6"]
    words = [word for task in tasks for word in ("--task", task)]
    solvers = ("hqs:steps=2,diffpir:steps=2,daps:steps=1:langevin_steps=2,ddrm:steps=2,"
               "pigdm:steps=2")
    result = succeed("evaluate", folder, "-o", out, *words, "--crop", 12, "--prior", weights,
                     "--solver", solvers, "--baseline", "measurement", "--samples", 2)
    assert "ddrm:steps=2 supports none of the tasks: left out" in result.stderr
    with (out / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["task"] for row in rows} == set(tasks)
    drawn = [row for row in rows if "diffpir" in row["method"]]
    assert len(drawn) == len(tasks)
    for row in drawn:
        assert float(row["psnr_best"]) > 0
    without_noise = {row["task"] for row in rows if "pigdm" in row["method"]}
    assert without_noise == {"quantise:levels=6"}
    assert not [row for row in rows if "daps" in row["method"] and row["task"][:3] == "qua"]
    assert len([row for row in rows if row["method"] == "measurement"]) == len(tasks)
