"""Texture prior on the command line: inpaint, deblur, superres, denoise, sample, texture."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shell import levels, photo, refused, save_photo, sidecar, snapshot, succeed
from skimage import data

from genprior import estimate_prior
from genprior.api.estimated_priors import draw_texture
from genprior.io.images import read_image

SIZE = (40, 48)
TEXTURE = ["--prior", "texture"]
TASKS = {
    "inpaint": ["--mask", "box=10x12"],
    "deblur": ["--gaussian", "0.7"],
    "superres": ["--factor", "2"],
    "denoise": ["--noise", "0.1"],
}


def save_grey(path: Path, kind: str = "grass", start: int = 0) -> Path:
    crop = getattr(data, kind)()[start : start + SIZE[0], start : start + SIZE[1]]
    Image.fromarray(crop).save(path)
    return path


@pytest.mark.parametrize("kind", ["grass", "brick", "colour"])
def test_a_hole_is_filled_and_the_rest_is_exact(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a.png"
    save_photo(file, size=SIZE) if kind == "colour" else save_grey(file, kind)
    hole = np.zeros(SIZE, bool)
    hole[15:25, 18:30] = True
    drawn = []
    for name, seed in (("b", 0), ("c", 0), ("d", 1)):
        options = ["--mask", "box=10x12", "--seed", seed, "-o", tmp_path / f"{name}.png"]
        result = succeed("inpaint", file, *TEXTURE, *options)
        assert "[gaussian, noise 0, 0 NFE" in result.stdout and result.stderr == ""
        drawn.append(levels(tmp_path / f"{name}.png"))
        np.testing.assert_array_equal(drawn[-1][~hole], levels(file)[~hole])
        assert (drawn[-1] != levels(file))[hole].mean() > 0.9
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2])[hole].mean() > 0.9
    record = sidecar(tmp_path / "b.png")
    assert record["exemplar"] is None and record["solver_settings"]["border"] == 3
    assert record["prior_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_is_in_the_hole_does_not_matter(tmp_path: Path) -> None:
    """The texture comes from the known part of the file alone."""
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[10:20, 5:30] = 0
    for name, below in (("a", 0), ("b", 255)):
        grey = np.where(alpha > 0, data.gravel()[: SIZE[0], : SIZE[1]], below).astype(np.uint8)
        Image.fromarray(np.dstack([grey, alpha])).save(tmp_path / f"{name}.png")
        succeed("inpaint", tmp_path / f"{name}.png", *TEXTURE)
    first, second = (levels(tmp_path / f"{name}.genprior.png") for name in "ab")
    np.testing.assert_array_equal(first, second)


def test_files_are_restored_each_with_its_own_texture(tmp_path: Path) -> None:
    files = [save_grey(tmp_path / f"{kind}.png", kind) for kind in ("grass", "gravel")]
    succeed("inpaint", *files, "--mask", "box=9x9", *TEXTURE, "-o", tmp_path / "both")
    for file in files:
        alone = tmp_path / "alone" / file.name
        succeed("inpaint", file, "--mask", "box=9x9", *TEXTURE, "-o", alone)
        together = tmp_path / "both" / f"{file.stem}.genprior.png"
        np.testing.assert_array_equal(levels(alone), levels(together))


@pytest.mark.parametrize("task", TASKS)
def test_an_exemplar_serves_every_task(tmp_path: Path, task: str) -> None:
    files = [save_grey(tmp_path / f"{k}.png", start=40 * k) for k in (1, 2)]
    exemplar = save_grey(tmp_path / "exemplar.png", start=200)
    options = [*TASKS[task], *TEXTURE, "--exemplar", exemplar, "--degrade", "--samples", 3]
    save = ["--save", "mean,std,samples,panel"]
    succeed(task, *files, *options, *save, "-o", tmp_path / "out")
    for file in files:
        output = tmp_path / "out" / f"{file.stem}.genprior.png"
        record = sidecar(output)
        assert record["solver"] == "gaussian" and record["exemplar"] == str(exemplar)
        assert record["prior_sha256"] == hashlib.sha256(exemplar.read_bytes()).hexdigest()
        assert record["psnr"] > 15 and len(record["saved"]) == 6
        samples = [levels(output.with_name(f"{file.stem}.genprior.sample-0{k}.png"))
                   for k in range(3)]
        assert not np.array_equal(samples[0], samples[1])
        assert np.abs(np.mean(samples, 0) - levels(output)).mean() < 1


def test_the_mean_of_samples_denoises(tmp_path: Path) -> None:
    file, exemplar = save_grey(tmp_path / "a.png"), save_grey(tmp_path / "b.png", start=100)
    options = ["--noise", 0.1, "--degrade", *TEXTURE, "--exemplar", exemplar]
    succeed("denoise", file, *options, "--samples", 8)
    record = sidecar(tmp_path / "a.genprior.png")
    assert record["psnr"] > record["psnr_measurement"] + 1


def test_the_other_solvers_take_a_texture(tmp_path: Path) -> None:
    file, exemplar = save_grey(tmp_path / "a.png"), save_grey(tmp_path / "b.png", start=100)
    options = ["--noise", 0.1, *TEXTURE, "--exemplar", exemplar, "--solver", "posterior-mean"]
    assert "[posterior-mean" in succeed("denoise", file, *options).stdout


def test_texture_draws_from_the_law_of_the_exemplar(tmp_path: Path) -> None:
    exemplar = save_grey(tmp_path / "a.png")
    prior = estimate_prior("texture", read_image(exemplar).pixels, margin=None)
    for method, seed in (("adsn", 0), ("rpn", 3)):
        out = tmp_path / "new" / f"{method}.png"
        options = ["--size", "64x30", "-o", out, "--seed", seed, f"--{method}"]
        assert succeed("texture", exemplar, *options).stdout == f"{exemplar} -> {out}\n"
        expected = draw_texture(prior, (64, 30), method, seed).mul(255).add(0.5).floor()
        np.testing.assert_array_equal(levels(out), expected[0, 0].numpy())
    assert succeed("texture", exemplar, "-o", tmp_path / "b.png", "-q").output == ""
    default = draw_texture(prior, SIZE).mul(255).add(0.5).floor()
    np.testing.assert_array_equal(levels(tmp_path / "b.png"), default[0, 0].numpy())


def test_texture_keeps_the_bits_of_the_exemplar(tmp_path: Path) -> None:
    array = (photo(3, SIZE).astype(np.uint16) * 257)[..., 0]
    Image.fromarray(array).save(tmp_path / "a.png")
    succeed("texture", tmp_path / "a.png", "-o", tmp_path / "b.png", "--size", "9x9")
    picture = read_image(tmp_path / "b.png")
    assert picture.bits == 16 and (picture.pixels * 255 % 1 > 0.01).any()


def test_sample_draws_from_an_exemplar(tmp_path: Path) -> None:
    grey, colour = save_grey(tmp_path / "a.png"), save_photo(tmp_path / "c.png", size=SIZE)
    for exemplar in (grey, colour):
        out = tmp_path / f"out-{exemplar.name}"
        options = ["--exemplar", exemplar, "--size", "20x60", "--count", 2, "-o", out]
        succeed("sample", *TEXTURE, *options)
        pixels = read_image(out).pixels
        assert pixels.shape[-2:] == (20, 124)
        assert not torch.equal(pixels[..., :60], pixels[..., 64:])
        mean = read_image(exemplar).pixels.mean((2, 3))
        assert pixels.shape[1] == mean.shape[1]
        assert (pixels[..., :60].mean((2, 3)) - mean).abs().max() < 0.15


USAGE, INPUT, WEIGHTS = 2, 3, 4
ERRORS = {
    "denoise @/a.png --noise 0.1 --prior texture": (
        USAGE, "'texture' is estimated from an image: give one with --exemplar (only inpaint"
    ),
    "deblur @/a.png --gaussian 1 --prior texture": (USAGE, "give one with --exemplar"),
    "superres @/a.png --prior texture": (USAGE, "give one with --exemplar"),
    "inpaint @/a.png --mask box=3x3 --exemplar @/a.png": (
        USAGE, "'ddpm' is not estimated from an image: choose texture, or omit the exemplar"
    ),
    "inpaint @/a.png --mask box=3x3 --prior texture --exemplar @/none.png": (
        INPUT, "none.png: cannot be read"
    ),
    "denoise @/a.png --noise 0.1 --prior texture --exemplar @/colour.png": (
        INPUT, "a.png: this texture has 3 channel(s)", "convert the images or the exemplar"
    ),
    "inpaint @/a.png --mask box=3x3 --prior texture --solver gaussian --steps 3": (
        USAGE, "solver 'gaussian' has no setting 'steps'"
    ),
    "sample --prior texture -o @/x.png": (WEIGHTS, "it is estimated from an image: use --exemp"),
    "sample --exemplar @/a.png -o @/x.png": (USAGE, "'ddpm' is not estimated from an image"),
    "priors info texture": (WEIGHTS, "prior 'texture' has no weights"),
    "texture @/none.png -o @/x.png": (INPUT, "none.png: cannot be read"),
    "texture @/a.png -o @/a.png": (INPUT, "a.png is an input: choose another -o"),
    "texture @/a.png -o @/x.png --size 0x3": (USAGE, "'0x3' is not a size"),
    "texture @/clear.png -o @/x.png": (INPUT, "clear.png: the exemplar has no known pixel"),
    "train texture @ -o @/run --steps 1": (USAGE, "texture is computed, not trained"),
}


@pytest.mark.parametrize("typed", ERRORS)
def test_one_line_and_a_code_and_nothing_written(tmp_path: Path, typed: str) -> None:
    save_grey(tmp_path / "a.png")
    save_photo(tmp_path / "colour.png")
    Image.fromarray(np.zeros((8, 8, 2), np.uint8)).save(tmp_path / "clear.png")
    before = snapshot(tmp_path)
    code, message = refused(*typed.replace("@", str(tmp_path)).split())
    expected, *parts = ERRORS[typed]
    for part in parts:
        assert part in message
    assert code == expected
    assert snapshot(tmp_path) == before
