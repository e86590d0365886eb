"""Commands degrade, sample, priors, solvers and train."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import SIZE, levels, photo, save_photo, succeed

from genprior.api.factory import load_prior, make_solver
from genprior.api.sampling import sample
from genprior.io.images import read_image
from genprior.operators.superres import SuperResolution
from genprior.priors.base import ABILITIES
from genprior.priors.weights import embedded_priors
from genprior.registry import SOLVERS, TRAINABLE


def test_degrade_then_inpaint_knows_the_hole(tmp_path: Path, weights: Path) -> None:
    file, holed = save_photo(tmp_path / "a.png"), tmp_path / "new" / "holed.png"
    result = succeed("degrade", "inpaint", file, "--mask", "random=0.5", "-o", holed)
    assert result.stdout == f"{file} -> {holed}\n"
    measured = levels(holed)
    known = measured[..., 3] == 255
    assert known.sum() == SIZE[0] * SIZE[1] // 2 and set(np.unique(measured[..., 3])) == {0, 255}
    np.testing.assert_array_equal(measured[..., :3][known], photo()[known])
    assert (measured[..., :3][~known] == 0).all()
    succeed("inpaint", holed, "--prior", weights, "--steps", 2, "-o", tmp_path / "b.png")
    np.testing.assert_array_equal(levels(tmp_path / "b.png")[known], photo()[known])


def test_degrade_superres_is_the_operator(tmp_path: Path) -> None:
    file = save_photo(tmp_path / "a.png", size=(25, 31))
    out = tmp_path / "b.png"
    succeed("degrade", "superres", file, "--factor", 2, "--filter", "box", "-o", out, "-q")
    x = read_image(file).pixels
    expected = SuperResolution(2, "box").A(x).mul(255).round().clamp(0, 255)
    assert levels(out).shape == (13, 16, 3)
    np.testing.assert_allclose(levels(out), expected[0].permute(1, 2, 0), atol=1)


def test_degrade_deblur_of_an_even_picture_changes_nothing(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "a.png")
    succeed("degrade", "deblur", tmp_path / "a.png", "--motion", "5,30", "-o", tmp_path / "b.png")
    blurred = levels(tmp_path / "b.png")
    assert (blurred == 90).all() and min(blurred.shape[:2]) < 20


def test_degrade_denoise_has_its_own_noise_per_seed(tmp_path: Path) -> None:
    file = save_photo(tmp_path / "a.png", size=(64, 64), start=300)
    noise = {}
    for seed in (0, 1):
        out = tmp_path / f"{seed}.npy"
        succeed("degrade", "denoise", file, "--noise", 0.05, "--seed", seed, "-o", out)
        noise[seed] = (np.load(out) / 255.0 - levels(file) / 255).ravel()
    assert noise[0].std() == pytest.approx(0.05, rel=0.05)
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 5 / np.sqrt(noise[0].size)


def test_sample_writes_what_the_api_draws(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "new" / "x.png"
    options = ["--count", 2, "--size", "9x13", "--steps", 2, "--seed", 4, "--eta", 0]
    result = succeed("sample", "--prior", weights, "-o", out, *options)
    assert result.stdout == f"{out}\n"
    x = sample(weights, 2, (9, 13), steps=2, seed=4, eta=0.0)
    side_by_side = torch.cat([x[0], torch.ones(3, 9, 4), x[1]], 2).mul(255).add(0.5).floor()
    np.testing.assert_array_equal(levels(out), side_by_side.permute(1, 2, 0).byte().numpy())


def test_priors_are_listed_described_and_verified(weights: Path) -> None:
    listed = succeed("priors", "list").stdout
    assert f"trainable: {', '.join(TRAINABLE)}\n" in listed
    assert "computed: texture, pca\n" in listed and "from an exemplar: texture\n" in listed
    table = json.loads(succeed("priors", "list", "--json").stdout)
    assert [row["name"] for row in table["shipped"]] == list(embedded_priors())
    assert all(f"{row['name']:16} {row['summary']}\n" in listed for row in table["shipped"])
    assert table["trainable"] == list(TRAINABLE)
    assert table["computed"] == ["texture", "pca"] and table["from_an_exemplar"] == ["texture"]
    manifest = json.loads((weights / "manifest.json").read_text())
    told = json.loads(succeed("priors", "info", weights).stdout)
    assert {"hqs", "dps", "moment-matched"} <= set(told["solvers"])
    assert not {"csgm", "gaussian", "psld"} & set(told.pop("solvers"))
    assert told == manifest
    assert succeed("priors", "verify", weights).stdout == f"{weights}: ok\n"


def test_solvers_are_listed_with_what_they_cost_and_need() -> None:
    head, *lines = succeed("solvers").stdout.splitlines()
    assert head.split() == [
        "solver", "steps", "NFE", "backward", "needs", "use", "it", "for"
    ]
    listed = {name: rest for name, *rest in (line.split(maxsplit=5) for line in lines)}
    assert list(listed) == list(SOLVERS)
    for name, (steps, nfe, products, ability, summary) in listed.items():
        solver = make_solver(name)
        assert steps == str(getattr(solver, "steps", "-"))
        assert (int(nfe), int(products)) == (solver.nfe, solver.jacobian_products)
        assert summary == solver.summary
        assert ABILITIES[ability] is solver.needs


def test_training_starts_from_the_weights_of_a_prior(weights: Path, tmp_path: Path) -> None:
    folder, run = tmp_path / "photos", tmp_path / "run"
    folder.mkdir()
    save_photo(folder / "a.png")
    options = ["--init", weights, "-o", run, "--crop", 8, "--batch", 2, "--steps", 1, "-q"]
    succeed("train", "ddpm", folder, *options, "--lr", 1e-9)
    start, end = (load_prior(place).state_dict() for place in (weights, run))
    assert all(torch.allclose(start[key], end[key], atol=1e-6) for key in start)
    assert json.loads(succeed("priors", "info", run).stdout)["init"] == str(weights)


def test_train_resume_use_and_pack(tmp_path: Path) -> None:
    folder, run = tmp_path / "photos", tmp_path / "run"
    folder.mkdir()
    save_photo(folder / "a.png")
    options = ["-o", run, "--crop", 8, "--batch", 2, "--dtype", "float32", "-q"]
    tiny = ["--set", "widths=[8, 16]", "--set", "blocks=[1, 1]"]
    succeed("train", "ddpm", folder, *options, *tiny, "--steps", 2)
    result = succeed("train", "ddpm", folder, *options, *tiny, "--steps", 4, "--resume")
    assert result.stdout == ""
    info = json.loads(succeed("priors", "info", run).stdout)
    assert info["step"] == 4 and info["config"]["widths"] == [8, 16]
    assert info["data"] == ["photos"] and info["images"] == 1
    packed = tmp_path / "packed"
    succeed("priors", "pack", run, "-o", packed, "--summary", "tiny")
    assert json.loads(succeed("priors", "info", packed).stdout)["summary"] == "tiny"
    for prior in (run, packed):
        out = tmp_path / f"{prior.name}.png"
        succeed("denoise", folder / "a.png", "--noise", 0.1, "--prior", prior, "-o", out)
        assert levels(out).shape == (*SIZE, 3)
