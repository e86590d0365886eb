"""Super-resolution to any factor or size, and notes and warnings of the restoring commands."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import SIZE, levels, photo, save_photo, sidecar, succeed
from torch.nn.functional import interpolate

from genprior import restore
from genprior.cli import WORDS, main
from genprior.core.errors import RestorationWarning
from genprior.io.images import read_image
from genprior.operators.superres import SuperResolution


@pytest.mark.parametrize(
    "options, whole, size",
    [(["--factor", 1.5], 2, (36, 48)), (["--factor", "2.25"], 3, (54, 72)),
     (["--size", "50x38"], 2, (38, 50)), (["--size", "65x48"], 3, (48, 65))],
)
def test_an_image_is_restored_at_the_next_factor_and_resampled(
    tmp_path: Path, weights: Path, options: list, whole: int, size: tuple[int, int]
) -> None:
    file, common = save_photo(tmp_path / "a.png"), ["--prior", weights, "--steps", 2]
    result = succeed("superres", file, *options, *common, "-o", tmp_path / "b.tif")
    y, operator = read_image(file).pixels, SuperResolution(whole)
    x = restore(y, operator, weights, noise_std=0.01, steps=2).image
    expected = interpolate(x, size, mode="bicubic", antialias=True)[0].clamp(0, 1).mul(255)
    assert levels(tmp_path / "b.tif").shape == (*size, 3)
    assert np.abs(levels(tmp_path / "b.tif") - expected.permute(1, 2, 0).numpy()).max() < 0.51
    record = sidecar(tmp_path / "b.tif")
    height, width = whole * SIZE[0], whole * SIZE[1]
    text = (f"restored at factor {whole} to {width}x{height} pixels, then resampled to "
            f"{size[1]}x{size[0]} (width x height)")
    assert record["resampled"] == text
    assert f"note: {tmp_path / 'b.tif'}: {text}\n" in result.stderr
    assert record["operator"][options[0][2:]] in (options[1], float(str(options[1]).split("x")[0]))


def test_a_size_that_is_a_whole_factor_is_not_resampled(tmp_path: Path, weights: Path) -> None:
    file, common = save_photo(tmp_path / "a.png"), ["--prior", weights, "--steps", 2]
    for name, options in (("b", ["--size", "64x48"]), ("c", ["--factor", 2.0]), ("d", [])):
        succeed("superres", file, *options, *common, "-o", tmp_path / f"{name}.png")
        assert "resampled" not in sidecar(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(levels(tmp_path / f"{name}.png"), levels(tmp_path / "b.png"))


def test_images_of_several_sizes_get_the_same_width(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "in").mkdir()
    save_photo(tmp_path / "in" / "a.png"), save_photo(tmp_path / "in" / "b.png", size=(12, 16))
    save_photo(tmp_path / "in" / "c.png", size=(12, 16))
    succeed("superres", tmp_path / "in", "--size", "40x30", "--prior", weights, "--steps", 2)
    for name in "abc":
        assert levels(tmp_path / "in" / f"{name}.genprior.png").shape == (30, 40, 3)


def test_the_spread_is_that_of_the_resampled_samples(tmp_path: Path, weights: Path) -> None:
    y = read_image(save_photo(tmp_path / "a.png")).pixels
    operator = SuperResolution(2, output_size=(36, 48))
    options = {"noise_std": 0.05, "samples": 3, "steps": 2, "antithetic": False}
    result = restore(y, operator, weights, "diffpir", **options)
    whole = restore(y, SuperResolution(2), weights, "diffpir", **options)
    samples = interpolate(whole.samples[0], (36, 48), mode="bicubic", antialias=True)
    assert torch.equal(result.samples[0], samples)
    torch.testing.assert_close(result.std[0], samples.std(dim=0), rtol=0, atol=1e-5)


def test_the_options_are_kept_in_a_configuration(tmp_path: Path, weights: Path) -> None:
    file = save_photo(tmp_path / "a.png")
    for options in (["--size", "50x38"], ["--factor", "1.5"]):
        dumped = succeed("superres", file, *options, "--dump-config").stdout
        (tmp_path / "c.toml").write_text(dumped)
        again = succeed("superres", file, "--config", tmp_path / "c.toml", "--dump-config").stdout
        assert again == dumped and options[1] in dumped


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
@pytest.mark.parametrize("options", [["--filter", "gaussian", "--std", 20], ["--factor", 8]])
def test_a_filter_may_be_larger_than_the_image(
    tmp_path: Path, weights: Path, size: tuple[int, int], options: list
) -> None:
    file = save_photo(tmp_path / "a.png", size=size)
    succeed("superres", file, *options, "--prior", weights, "--steps", 1)
    factor = 8 if "--factor" in options else 2
    written = levels(tmp_path / "a.genprior.png")
    assert written.shape == (factor * size[0], factor * size[1], 3)


def test_steps_are_not_used_for_denoising_and_a_note_says_so(
    tmp_path: Path, weights: Path
) -> None:
    file, options = save_photo(tmp_path / "a.png"), ["--noise", 0.1, "--prior", weights]
    result = succeed("denoise", file, *options, "--steps", 3)
    assert "steps 3 is not used: PosteriorMean, the default solver here, has no" in result.stderr
    one = levels(tmp_path / "a.genprior.png")
    assert "not used" not in succeed("denoise", file, *options, "--overwrite").stderr
    np.testing.assert_array_equal(one, levels(tmp_path / "a.genprior.png"))


def test_the_shell_names_the_option_and_python_does_not_warn(
    tmp_path: Path, weights: Path
) -> None:
    file = save_photo(tmp_path / "a.png")
    with warnings.catch_warnings(action="error", category=RestorationWarning):
        result = succeed("denoise", file, "--noise", 0, "--prior", weights)
    assert "nothing to restore: give --noise" in result.stderr
    assert "noise_std" not in result.stderr + json.dumps(sidecar(tmp_path / "a.genprior.png"))


def test_a_kernel_of_whole_numbers_is_scaled(tmp_path: Path, weights: Path) -> None:
    file, written = save_photo(tmp_path / "a.png"), []
    kernel = np.array([[1, 2, 1], [2, 40, 2], [1, 2, 1]])
    options = ["--prior", weights, "--steps", 2, "--overwrite"]
    for k, values in enumerate((kernel, kernel / 52, kernel.astype(np.int16), 1e6 * kernel)):
        np.save(tmp_path / f"{k}.npy", values)
        succeed("deblur", file, "--kernel", tmp_path / f"{k}.npy", *options)
        written.append(levels(tmp_path / "a.genprior.png").astype(int))
    assert all(np.abs(other - written[0]).max() <= 1 for other in written)
    assert written[0].shape == photo().shape


def test_other_words_for_commands_are_known() -> None:
    assert set(WORDS) <= set(main.commands)
    words = [word for group in WORDS.values() for word in group]
    assert len(words) == len(set(words)) and not set(words) & set(main.commands)
