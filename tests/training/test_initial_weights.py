"""Training that starts from the weights of another run (--init)."""

from pathlib import Path

import pytest
import torch
from shell import refused, save_photo, succeed
from torch import Tensor

from genprior.api.factory import load_checkpoint


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
    code, message = refused("train", "ddpm", photos, *short, *init, "--set", "widths=[4,12]")
    assert code == 2 and "its weights do not fit --set widths=[4,12]" in message
    code, message = refused("train", "ddpm", photos, *short, *init, "--set", "widths=[4]",
                            "--set", "blocks=[1]", "--set", "holes=false")
    assert code == 2 and "its weights do not fit --set widths=[4]" in message
    short[1] = tmp_path / "b"
    code, message = refused("train", "ddpm", photos, *short, *small, "--resume")
    assert code == 4 and "another network, holes was True, now it is False: give the" in message
