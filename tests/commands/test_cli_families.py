"""Every family of priors on the command line: train, restore, sample, pack."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import SIZE, levels, photo, save_photo, sidecar, succeed

from genprior.api.factory import load_prior
from genprior.api.sampling import sample

TINY = {
    "glow": ["levels=1", "depth=1", "width=4"],
    "vae": ["latent=2", "widths=[4, 4]", "blocks=1"],
    "hvae": ["latent=2", "widths=[4, 4]", "groups=[0, 1]"],
    "gan": ["latent=2", "widths=[4, 4]", "loss=wgan-gp", "critic_steps=2"],
}
SOLVERS = {"glow": "map", "vae": "jpmap", "hvae": "jpmap", "gan": "iagan"}
# Smallest settings for grey images of 8 x 8 pixels.
SIZED = {
    "vae": ["size=[8, 8]", "widths=[6]", "latent=2", "likelihood=bernoulli", "std=0.1"],
    "gan": ["size=[8, 8]", "widths=[4, 4]", "latent=2", "architecture=style"],
    "glow": ["architecture=realnvp", "levels=1", "depth=2", "width=4", "logit=0.05"],
}


def settings(texts: list[str]) -> list[str]:
    return [word for text in texts for word in ("--set", text)]


@pytest.mark.parametrize("family", TINY)
def test_train_pack_restore_and_sample(family: str, tmp_path: Path) -> None:
    folder, run = tmp_path / "photos", tmp_path / "run"
    folder.mkdir()
    file = save_photo(folder / "a.png", size=(21, 27))
    options = ["-o", run, "--crop", 8, "--batch", 2, "--dtype", "float32", "-q"]
    succeed("train", family, folder, *options, *settings(TINY[family]), "--steps", 2)
    succeed("train", family, folder, *options, *settings(TINY[family]), "--steps", 3, "--resume")
    packed = tmp_path / f"{family}-tiny"
    succeed("priors", "pack", run, "-o", packed, "--summary", "tiny")
    succeed("priors", "verify", packed)

    hole, out = tmp_path / "hole.png", tmp_path / "b.png"
    succeed("degrade", "inpaint", file, "--mask", "random=0.5", "-o", hole)
    succeed("inpaint", hole, "--prior", packed, "-o", out)
    known = levels(hole)[..., 3] == 255
    np.testing.assert_array_equal(levels(out)[known], photo(size=(21, 27))[known])
    record = sidecar(out)
    assert record["solver"] == SOLVERS[family] and record["prior"] == str(packed)
    assert np.isfinite(record["misfit"]) and levels(out).shape == (21, 27, 3)

    drawn = tmp_path / "x.png"
    succeed("sample", "--prior", packed, "--size", "9x11", "--temperature", 0.7, "-o", drawn)
    x = sample(packed, size=(9, 11), temperature=0.7)
    expected = x[0].mul(255).add(0.5).floor().permute(1, 2, 0).byte().numpy()
    np.testing.assert_array_equal(levels(drawn), expected)


@pytest.mark.parametrize("family", SIZED)
def test_sets_of_one_size_in_grey(family: str, tmp_path: Path) -> None:
    folder, run = tmp_path / "photos", tmp_path / "run"
    folder.mkdir()
    for k in range(3):
        save_photo(folder / f"{k}.png", channels=1, size=(8, 8), start=40 * k)
    arguments = settings(["channels=1", *SIZED[family]])
    succeed("train", family, folder, "-o", run, "--crop", 8, "--batch", 2, "--steps", 2, "-q",
            *arguments)
    drawn = tmp_path / "x.png"
    succeed("sample", "--prior", run, "--count", 2, "--size", "8x8", "-o", drawn)
    assert levels(drawn).shape[0] == 8
    if family != "glow":  # which takes images of any size
        assert sample(run).shape == (1, 1, 8, 8)
    out = tmp_path / "b.png"
    steps = [] if family == "vae" else ["--steps", 2]
    succeed("inpaint", folder / "0.png", "--mask", "box=3x3", "--prior", run, *steps, "-o", out)
    assert levels(out).shape == (8, 8)
    assert sidecar(out)["solver"] == {"vae": "jpmap", "gan": "iagan", "glow": "map"}[family]


def test_several_samples_are_markov_chains(tmp_path: Path) -> None:
    run, file = tmp_path / "run", save_photo(tmp_path / "a.png", size=SIZE)
    (tmp_path / "photos").mkdir()
    save_photo(tmp_path / "photos" / "a.png")
    succeed("train", "vae", tmp_path / "photos", "-o", run, "--crop", 8, "--batch", 2,
            "--steps", 1, "-q", *settings(TINY["vae"]))
    out = tmp_path / "b.png"
    succeed("denoise", file, "--noise", 0.1, "--prior", run, "--samples", 2, "--steps", 4,
            "--save", "std", "-o", out)
    assert sidecar(out)["solver"] == "langevin"
    assert json.loads(succeed("priors", "info", run).stdout)["config"]["widths"] == [4, 4]
    assert not any(p.requires_grad for p in load_prior(run).parameters())
    assert torch.isfinite(load_prior(run).decoder_std)
