"""Restoration of files on the command line: output files, and their reproduction."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import as_picture
from PIL import Image
from shell import SIZE, levels, photo, save_photo, sidecar, succeed
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from genprior.io.images import read_image, write_image
from genprior.operators.masks import random_keep

TASKS = {
    "inpaint": ["--mask", "random=0.5"],
    "deblur": ["--gaussian", "1", "--boundary", "reflect"],
    "superres": ["--factor", "2"],
    "denoise": ["--noise", "0.1"],
}


@pytest.fixture
def quick(weights: Path) -> list[object]:
    return ["--prior", weights, "--solver", "hqs", "--steps", 2]


@pytest.mark.parametrize("task", TASKS)
def test_a_file_is_restored_beside_the_input(tmp_path: Path, quick: list, task: str) -> None:
    file = save_photo(tmp_path / "a.png")
    result = succeed(task, file, *TASKS[task], *quick)
    output = tmp_path / "a.genprior.png"
    noise = {"inpaint": "0", "denoise": "0.1"}.get(task, "0.01")
    assert result.stdout.startswith(f"{file} -> {output} [hqs, noise {noise}, 2 NFE, ")
    scale = 2 if task == "superres" else 1
    assert levels(output).shape == (scale * SIZE[0], scale * SIZE[1], 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.genprior.json", "a.genprior.png", "a.png"
    ]


@pytest.mark.parametrize("task", TASKS)
def test_degrade_compares_what_was_written_as_skimage_does(
    tmp_path: Path, quick: list, task: str
) -> None:
    file = save_photo(tmp_path / "a.png")
    result = succeed(task, file, *TASKS[task], *quick, "--degrade")
    written = levels(tmp_path / "a.genprior.png")
    record = sidecar(tmp_path / "a.genprior.png")
    assert record["psnr"] == pytest.approx(peak_signal_noise_ratio(photo(), written), abs=1e-4)
    expected = structural_similarity(photo(), written, channel_axis=2)
    assert record["ssim"] == pytest.approx(expected, abs=1e-5)
    assert f"PSNR {record['psnr']:.2f} dB SSIM {record['ssim']:.4f}" in result.stdout
    assert ("psnr_measurement" in record) == (task != "superres")


def test_degrade_with_a_valid_blur_compares_the_pixels_that_remain(
    tmp_path: Path, quick: list
) -> None:
    array = np.dstack([photo(), np.full(SIZE, 128, np.uint8)])
    Image.fromarray(array).save(tmp_path / "a.png")
    succeed("deblur", tmp_path / "a.png", "--gaussian", "0.5", *quick, "--degrade")
    written = levels(tmp_path / "a.genprior.png")
    inner = array[2:-2, 2:-2]
    assert written.shape == inner.shape and (written[..., 3] == 128).all()
    expected = peak_signal_noise_ratio(inner[..., :3], written[..., :3])
    assert sidecar(tmp_path / "a.genprior.png")["psnr"] == pytest.approx(expected, abs=1e-4)


def test_a_perfect_result_is_still_json(tmp_path: Path, quick: list) -> None:
    Image.fromarray(np.full((16, 16, 3), 128, np.uint8)).save(tmp_path / "a.png")
    options = ["denoise", tmp_path / "a.png", "--noise", 0, "--degrade"]
    result = succeed(*options, "--prior", quick[1], "--json")
    (record,) = json.loads(result.stdout)
    assert record["psnr"] is None and record["solver"] == "posterior-mean"
    again = succeed(*options, "--prior", quick[1], "--overwrite")
    assert "PSNR infinite" in again.stdout


def test_the_examples_of_the_help_of_issue_2(tmp_path: Path, weights: Path) -> None:
    file = save_photo(tmp_path / "photo.png")
    result = succeed("inpaint", file, "--mask", "random=0.5", "--degrade", "--prior", weights)
    assert "[hqs, noise 0, 24 NFE" in result.stdout and "PSNR" in result.stdout
    options = ["--solver", "diffpir", "--samples", 4, "--save", "std,panel", "--steps", 2]
    succeed("inpaint", file, "--mask", "random=0.5", *options, "--prior", weights, "--overwrite")
    assert levels(tmp_path / "photo.genprior.std.png").shape == SIZE
    panel = levels(tmp_path / "photo.genprior.panel.png")
    assert panel.shape == (SIZE[0], 3 * SIZE[1] + 8, 3)
    np.testing.assert_array_equal(panel[:, SIZE[1] + 4 : 2 * SIZE[1] + 4],
                                  levels(tmp_path / "photo.genprior.png"))


def test_samples_mean_and_std_belong_together(tmp_path: Path, weights: Path) -> None:
    file = save_photo(tmp_path / "a.png")
    options = ["--samples", 3, "--save", "mean,std,samples,panel,q25,q50,q95", "--steps", 2]
    options += ["--solver", "diffpir"]
    succeed("denoise", file, "--noise", 0.2, *options, "--prior", weights)
    side = {name: levels(tmp_path / f"a.genprior.{name}.png").astype(float) for name in
            ("mean", "std", "sample-00", "sample-01", "sample-02")}
    samples = np.stack([side[f"sample-0{k}"] for k in range(3)])
    inside = ((samples > 0) & (samples < 255)).all(0)
    assert inside.mean() > 0.5
    assert np.abs(samples.mean(0) - side["mean"])[inside].max() <= 1
    np.testing.assert_array_equal(side["mean"], levels(tmp_path / "a.genprior.png"))
    white = sidecar(tmp_path / "a.genprior.png")["std_white"]
    std = np.sqrt((samples.std(0, ddof=1) ** 2).mean(2)) / 255
    assert np.abs(side["std"] / 255 * white - std)[inside.all(2)].max() < 0.01
    ordered = np.sort(samples, axis=0)
    for name, place in (("q25", 0), ("q50", 1), ("q95", 2)):
        np.testing.assert_array_equal(levels(tmp_path / f"a.genprior.{name}.png"), ordered[place])
    record = sidecar(tmp_path / "a.genprior.png")
    assert len(record["saved"]) == 9
    beyond = [text[:13] for text in record["warnings"] if text.startswith("quantile")]
    assert beyond == ["quantile 0.95"]


def test_many_files_and_folders_and_sizes(tmp_path: Path, quick: list) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    save_photo(inside / "a.png")
    save_photo(inside / "b.png", start=200)
    save_photo(inside / "c.jpg", size=(17, 19))
    save_photo(inside / "d.png", channels=1)
    (inside / "notes.txt").write_text("not an image")
    single = save_photo(tmp_path / "e.png", start=300)
    mask = ["--mask", "random=0.3"]
    result = succeed("inpaint", inside, single, *mask, *quick, "-o", tmp_path / "new" / "out")
    names = ["a.png", "b.png", "c.jpg", "d.png", "e.png"]
    *lines, totals = result.stdout.splitlines()
    assert [line.split()[0].split("/")[-1] for line in lines] == names
    assert totals.startswith("5 files: 5 restored; 10 NFE in ") and totals.endswith(" NFE/s)")
    together = {n: levels(tmp_path / "new" / "out" / n.replace(".", ".genprior.")) for n in names}
    assert together["d.png"].shape == SIZE and together["c.jpg"].shape == (17, 19, 3)
    for name in names:
        file = single if name == "e.png" else inside / name
        alone = tmp_path / f"alone-{name}"
        succeed("inpaint", file, *mask, *quick, "-o", alone)
        np.testing.assert_array_equal(levels(alone), together[name])
    # a second run over the folder ignores the results of the first
    succeed("inpaint", inside, *mask, *quick)
    assert succeed("inpaint", inside, *mask, *quick, "--overwrite").stdout.count("->") == 4


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_known_pixels_stay_to_the_bit(
    tmp_path: Path, quick: list, bits: int, channels: int
) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2**bits, (*SIZE, channels)) / (2**bits - 1)
    dtype = np.uint8 if bits == 8 else np.uint16
    file = tmp_path / "a.png"
    write_image(file, as_picture((array * (2**bits - 1)).round().astype(dtype)))
    succeed("inpaint", file, "--mask", "random=0.4", "--seed", 3, *quick)
    before, after = read_image(file), read_image(tmp_path / "a.genprior.png")
    assert after.bits == bits
    known = random_keep((1, 1, *SIZE), 0.4, 3).expand_as(before.pixels)
    assert (before.pixels == after.pixels)[known].all()
    assert (before.pixels != after.pixels)[~known].float().mean() > 0.9


def test_alpha_is_the_hole_and_the_result_is_opaque(tmp_path: Path, quick: list) -> None:
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[5:9, 6:12] = 0
    Image.fromarray(np.dstack([photo(), alpha])).save(tmp_path / "a.png")
    succeed("inpaint", tmp_path / "a.png", *quick)
    written = levels(tmp_path / "a.genprior.png")
    assert written.shape == (*SIZE, 3)
    changed = (written != photo()).any(2)
    assert changed[alpha == 0].mean() > 0.9 and not changed[alpha == 255].any()
    succeed("inpaint", tmp_path / "a.png", *quick, "--invert-mask", "-o", tmp_path / "b.png")
    changed = (levels(tmp_path / "b.png") != photo()).any(2)
    assert not changed[alpha == 0].any() and changed[alpha == 255].mean() > 0.9


def test_alpha_of_a_photo_is_kept_where_it_is_no_mask(tmp_path: Path, quick: list) -> None:
    array = np.dstack([photo(), photo()[..., 0]])
    Image.fromarray(array).save(tmp_path / "a.png")
    succeed("inpaint", tmp_path / "a.png", "--mask", "box=4x6", *quick)
    written = levels(tmp_path / "a.genprior.png")
    np.testing.assert_array_equal(written[..., 3], array[..., 3])
    hole = np.zeros(SIZE, bool)
    hole[10:14, 13:19] = True
    np.testing.assert_array_equal((written != array).any(2), hole)


def test_a_rotated_photo_meets_its_mask_upright(tmp_path: Path, quick: list) -> None:
    turned = Image.fromarray(np.rot90(photo()).copy())  # orientation 6: turn clockwise to view
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.png", exif=exif)
    hole = np.zeros(SIZE, np.uint8)
    hole[2:8, 3:20] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    Image.fromarray(np.rot90(hole).copy()).save(tmp_path / "turned.png", exif=exif)
    for mask in ("mask.png", "turned.png"):
        succeed("inpaint", tmp_path / "a.png", "--mask", tmp_path / mask, *quick, "--overwrite")
        written = levels(tmp_path / "a.genprior.png")
        changed = (written != photo()).any(2)
        assert not changed[hole == 0].any() and changed[hole > 0].mean() > 0.9
    record = sidecar(tmp_path / "a.genprior.png")
    mask = {"mask": str(tmp_path / "turned.png"), "invert_mask": False}
    assert record["operator"] == {**mask, "grow": 0, "fill": None}


def test_windows_and_tiles_are_recorded(tmp_path: Path, quick: list) -> None:
    file = save_photo(tmp_path / "a.png", size=(70, 130))
    succeed("inpaint", file, "--mask", "box=3x4", *quick)
    ((top, bottom, left, right),) = sidecar(tmp_path / "a.genprior.png")["windows"]
    assert 0 < top < 33 and 36 < bottom < 70 and 0 < left < 63 and 67 < right < 130
    succeed("denoise", file, "--noise", 0.1, *quick, "--tile", 64, "--overwrite")
    record = sidecar(tmp_path / "a.genprior.png")
    assert (record["tile"], record["tiles"], record["windows"]) == (64, 64, [])
    tiled = levels(tmp_path / "a.genprior.png")
    succeed("denoise", file, "--noise", 0.1, *quick, "--overwrite")
    assert sidecar(tmp_path / "a.genprior.png")["tiles"] is None
    assert np.abs(tiled - levels(tmp_path / "a.genprior.png").astype(float)).max() <= 2


REDONE = {
    "inpaint": ["--mask", "random=0.5", "--invert-mask"],
    "deblur": ["--motion", "3,30.5", "--boundary", "circular"],
    "superres": ["--factor", 2, "--filter", "gaussian", "--std", 0.7],
    "denoise": [],
}


@pytest.mark.parametrize("task", REDONE)
def test_the_sidecar_reproduces_the_result(tmp_path: Path, weights: Path, task: str) -> None:
    file = save_photo(tmp_path / "a.png")
    options = ["--noise", 0.05, "--samples", 2, "--save", "samples", "--steps", 3, "--seed", 7]
    options += ["--degrade", "--prior", weights, "--dtype", "bfloat16"]
    succeed(task, file, *REDONE[task], *options)
    record = sidecar(tmp_path / "a.genprior.png")
    manifest = json.loads((weights / "manifest.json").read_text())
    assert record["prior_sha256"] == manifest["files"]["model.safetensors"]["sha256"]
    assert record["solver_settings"]["steps"] == 3
    redo = [record["task"], record["input"], "-o", tmp_path / "b.png"]
    for name in ("noise", "prior", "solver", "samples", "seed", "device", "dtype"):
        redo += [f"--{name}", record[name]]
    for name, value in record["operator"].items():
        flag = f"--{name.replace('_', '-')}"
        if value not in (False, None):
            redo += [flag] if value is True else [flag, value]
    redo += ["--steps", record["solver_settings"]["steps"], "--save", "samples"]
    succeed(*redo, *(["--degrade"] if record["degrade"] else []))
    for name in ("", ".sample-00", ".sample-01"):
        first, second = tmp_path / f"a.genprior{name}.png", tmp_path / f"b{name}.png"
        assert first.read_bytes() == second.read_bytes()
    assert not np.array_equal(*(levels(tmp_path / f"b.sample-0{k}.png") for k in (0, 1)))


def test_the_seed_matters_where_numbers_are_drawn(tmp_path: Path, weights: Path) -> None:
    file = save_photo(tmp_path / "a.png")
    options = ["--noise", 0.1, "--solver", "diffpir", "--steps", 2, "--prior", weights]
    for name, seed in (("0", 0), ("0-again", 0), ("1", 1)):
        succeed("denoise", file, *options, "--seed", seed, "-o", tmp_path / f"{name}.png")
    zero, again, one = (levels(tmp_path / f"{n}.png") for n in ("0", "0-again", "1"))
    np.testing.assert_array_equal(zero, again)
    assert not np.array_equal(zero, one)


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".bmp", ".npy"])
def test_the_output_decides_the_format(tmp_path: Path, quick: list, suffix: str) -> None:
    file = save_photo(tmp_path / "a.png")
    succeed("inpaint", file, "--mask", "box=3x4", *quick)
    succeed("inpaint", file, "--mask", "box=3x4", *quick, "-o", tmp_path / f"b{suffix}")
    expected = read_image(tmp_path / "a.genprior.png").pixels
    assert (read_image(tmp_path / f"b{suffix}").pixels == expected).all()


def test_as_a_program(tmp_path: Path, quick: list) -> None:
    file = save_photo(tmp_path / "a.png")
    command = [sys.executable, "-m", "genprior", "inpaint", file, "--mask", "box=3x4", *quick]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == ""
    assert run.stdout.startswith(f"{file} -> {tmp_path / 'a.genprior.png'} [hqs")
    command[command.index("hqs")] = "dsp"
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("genprior: Invalid value for '--solver': 'dsp' is not one of")


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m genprior solvers"
    run = subprocess.run(f"{command} | true", shell=True, capture_output=True, text=True)
    assert run.stderr == ""


def test_a_mask_that_hides_most_of_an_image_gives_a_warning(tmp_path: Path, quick: list) -> None:
    file, hole = save_photo(tmp_path / "a.png"), np.zeros(SIZE, np.uint8)
    hole[2:7, 3:9] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    command = ["inpaint", file, *quick, "--mask", tmp_path / "mask.png", "--overwrite"]
    assert "filled in" not in succeed(*command).stderr
    told = succeed(*command, "--invert-mask").stderr
    assert "96% of the image is filled in: white pixels of the mask are filled in, --inv" in told
    command[command.index("--mask") + 1] = "random=0.9"
    assert "filled in" not in succeed(*command).stderr
