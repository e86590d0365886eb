"""Training that begins with another prior: its weights (--init), or its estimates (--teacher)."""

from pathlib import Path

import pytest
import torch
from shell import refused, save_photo, succeed
from torch import Tensor

from genprior.api.factory import load_checkpoint
from genprior.priors.checkpoint import newest, read_manifest, save_checkpoint
from genprior.priors.ddpm import DDPM


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    save_photo(folder / "0.png")
    return folder


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder)[0].state_dict()


def test_a_filler_is_added_to_weights_that_have_none_or_left_out(photos, tmp_path):
    short = ["-o", tmp_path / "a", "--steps", 2, "--batch", 2, "--no-preview", "-q", "--crop", 16]
    small = ["--set", "widths=[4,8]", "--set", "blocks=[1,1]"]
    succeed("train", "ddpm", photos, *short, *small)
    init = ["--init", tmp_path / "a", "--lr", 1e-12]
    short[1] = tmp_path / "b"
    succeed("train", "ddpm", photos, *short, *init, "--set", "holes=true")
    old, new = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    for key, value in old.items():
        for name in (key, key.replace("network.", "filler.")):
            torch.testing.assert_close(new[name], value, rtol=0, atol=1e-9)
    short[1], init[1] = tmp_path / "c", tmp_path / "b"
    succeed("train", "ddpm", photos, *short, *init, "--set", "holes=false")
    assert tensors(tmp_path / "c").keys() == old.keys()
    short[1] = tmp_path / "d"
    code, message = refused("train", "ddpm", photos, *short, *init, "--set", "blocks=[1,2]")
    assert code == 2 and "its weights do not fit --set blocks=[1,2]" in message
    code, message = refused("train", "ddpm", photos, *short, *init, "--set", "widths=[4]",
                            "--set", "blocks=[1]", "--set", "holes=false")
    assert code == 2 and "its weights do not fit --set widths=[4]" in message
    short[1] = tmp_path / "b"
    code, message = refused("train", "ddpm", photos, *short, *small, "--resume")
    assert code == 4 and "another network, holes was True, now it is False: give the" in message


def test_the_widths_of_ddpm_may_change_and_one_network_may_be_trained_alone(photos, tmp_path):
    short = ["--steps", 2, "--batch", 2, "--no-preview", "-q", "--crop", 16]
    small = ["--set", "widths=[4,8]", "--set", "blocks=[1,1]"]
    succeed("train", "ddpm", photos, *short, *small, "-o", tmp_path / "a")
    grown = [*short, "--init", tmp_path / "a", "--set", "widths=[4,12]", "--set", "holes=true"]
    succeed("train", "ddpm", photos, *grown, "--lr", 1e-12, "-o", tmp_path / "b")
    old, new = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    for part in ("network", "filler"):
        assert new[f"{part}.down.0.weight"].shape[0] == 12
        torch.testing.assert_close(
            new[f"{part}.head.weight"], old["network.head.weight"], rtol=0, atol=1e-9)
    again = ["train", "ddpm", photos, *short, "--init", tmp_path / "b", "--only", "filler"]
    succeed(*again, "-o", tmp_path / "c")
    before, after = tensors(tmp_path / "b"), tensors(tmp_path / "c")
    assert not torch.equal(after["filler.tail.weight"], before["filler.tail.weight"])
    for key, value in before.items():
        assert key.startswith("filler.") or torch.equal(after[key], value)
    code, message = refused(*again[:-1], "fill", "-o", tmp_path / "d")
    assert code == 2 and "ddpm has no network 'fill' to train: choose network or filler" in message
    # resumed with the same network, and with no other
    longer = ["train", "ddpm", photos, "--steps", 3, *short[2:], "--set", "widths=[4,12]",
              "--set", "blocks=[1,1]", "--set", "holes=true", "--resume", "-o", tmp_path / "c"]
    code, message = refused(*longer)
    assert code == 2 and "only was filler, now it is None" in message
    succeed(*longer, "--only", "filler")


def test_a_ddpm_learns_from_a_teacher(photos, tmp_path):
    short = ["--steps", 2, "--batch", 2, "--no-preview", "-q", "--crop", 16]
    small = ["--set", "widths=[4,8]", "--set", "blocks=[1,1]"]
    succeed("train", "ddpm", photos, *short, *small, "-o", tmp_path / "a")
    taught = ["train", "ddpm", photos, *short, *small]
    succeed(*taught, "--teacher", tmp_path / "a", "-o", tmp_path / "b")
    manifest = load_checkpoint(tmp_path / "b")[1]
    assert manifest["teacher"] == str(tmp_path / "a")
    code, message = refused("train", "ddpm", photos, "--steps", 3, *short[2:], *small, "--resume",
                            "-o", tmp_path / "b")
    assert code == 2 and f"teacher was {tmp_path / 'a'}, now it is None" in message
    code, message = refused("train", "ddpm", photos, "--steps", 3, *short[2:], *small, "--resume",
                            "-o", tmp_path / "a", "--teacher", tmp_path / "b")
    assert code == 2 and f"teacher was None, now it is {tmp_path / 'b'}" in message
    plain, learned = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    assert plain.keys() == learned.keys()
    assert any(not torch.equal(plain[key], learned[key]) for key in plain)
    code, message = refused(*taught, "--teacher", "glow", "-o", tmp_path / "c")
    assert code == 2 and "--teacher glow does not denoise: choose a ddpm" in message
    code, message = refused("train", "glow", photos, *short, "--teacher", tmp_path / "a",
                            "-o", tmp_path / "d")
    assert code == 2 and "a Glow cannot learn from a teacher" in message


def test_a_network_for_unrolled_steps_is_left_out_of_further_training(photos, tmp_path):
    short = ["--steps", 1, "--batch", 2, "--no-preview", "-q", "--crop", 16]
    prior = DDPM(widths=(4, 8), blocks=(1, 1), unrolled=True)
    save_checkpoint(tmp_path / "a", "ddpm", prior.config, prior.state_dict())
    succeed("train", "ddpm", photos, *short, "--init", tmp_path / "a", "-o", tmp_path / "b")
    old, new = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    assert set(new) == {key for key in old if not key.startswith("unrolled.")} < set(old)
    assert not read_manifest(newest(tmp_path / "b"))["config"]["unrolled"]
    code, message = refused("train", "ddpm", photos, *short, "--set", "unrolled=true",
                            "-o", tmp_path / "c")
    assert code == 2 and "is trained by benchmarks/train_unrolled.py" in message
