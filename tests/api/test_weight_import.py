"""Import of weight files: files that would run code or do not fit the prior are refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from shell import refused, save_photo, succeed

import genprior
from genprior import load_prior
from genprior.api.factory import load_checkpoint
from genprior.api.weight_import import import_weights
from genprior.core.errors import CheckpointError
from genprior.priors.checkpoint import save_checkpoint
from genprior.priors.ddpm import DDPM

CONFIG = {"widths": [8, 16], "blocks": [1, 1]}


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {key: torch.randn_like(value) for key, value in DDPM(**CONFIG).state_dict().items()}


WRAPPED = {
    "plain": ("", lambda w: w),
    "half": ("", lambda w: {key: value.half() for key, value in w.items()}),
    "wrapped": ("", lambda w: {f"module._orig_mod.{key}": value for key, value in w.items()}),
    "averaged": ("ema", lambda w: {"model": {}, "ema": w, "step": 3, "optimizer": {"lr": 0.1}}),
    "nested": ("state_dict", lambda w: {"state_dict": w, "epoch": 7}),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_imported(tmp_path: Path, kind: str) -> None:
    where, wrap = WRAPPED[kind]
    torch.save(wrap(weights()), tmp_path / "w.pth")
    assert import_weights(tmp_path / "w.pth", tmp_path / "made", "ddpm", CONFIG) == where
    prior, manifest = load_checkpoint(tmp_path / "made")
    assert manifest["imported"]["file"] == "w.pth" and manifest["config"]["widths"] == [8, 16]
    for key, value in weights().items():
        expected = value.half().float() if kind == "half" else value
        assert torch.equal(prior.state_dict()[key], expected)


def without(key: str) -> Callable[[dict], dict]:
    return lambda w: {name: value for name, value in w.items() if name != key}


REFUSED = {
    "a key is missing": (without("network.tail.bias"), "1 keys missing .network.tail.bias.; 0"),
    "a key is unknown": (lambda w: w | {"x": torch.zeros(1)}, "0 keys missing; 1 keys unknown .x"),
    "a shape is wrong": (
        lambda w: w | {"network.tail.bias": torch.zeros(4)},
        r"network.tail.bias is torch.float32 of shape \(4,\), prior 'ddpm' has floats of \(3,\)",
    ),
    "a type is wrong": (
        lambda w: w | {"network.tail.bias": torch.zeros(3, dtype=torch.int64)}, "int64 of shape"
    ),
    "a number is NaN": (
        lambda w: w | {"network.tail.bias": torch.full((3,), torch.nan)}, "holds NaN or infinite"
    ),
    "it holds no weights": (lambda w: {"epoch": 3}, "holds no dictionary of tensors, nor one un"),
    "it is no dictionary": (lambda w: [1, 2], "holds no dictionary of tensors"),
    "it holds an object": (lambda w: w | {"x": DDPM(**CONFIG)}, "Nothing in it was run"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, kind: str) -> None:
    change, message = REFUSED[kind]
    torch.save(change(weights()), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        import_weights(tmp_path / "w.pth", tmp_path / "made", "ddpm", CONFIG)
    assert not (tmp_path / "made").exists()


def test_nothing_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": weights(), "x": Bomb(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds more than weights.* Nothing in it was run"):
        import_weights(tmp_path / "w.pth", tmp_path / "made", "ddpm", CONFIG)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "w.pth", weights_only=False)  # an unsafe load runs it
    assert (tmp_path / "ran").exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(weights(), path)
    data = path.read_bytes()
    for cut in range(0, len(data), len(data) // 20):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match=r"w.pth: holds more than weights, is damaged"):
            import_weights(path, tmp_path / "made", "ddpm", CONFIG)
    path.unlink()
    with pytest.raises(CheckpointError, match="w.pth: no such file"):
        import_weights(path, tmp_path / "made", "ddpm", CONFIG)


def test_from_the_shell(tmp_path: Path) -> None:
    torch.save({"ema": weights()}, tmp_path / "w.pt")
    command = ["import", tmp_path / "w.pt", "--prior", "ddpm", "-o", tmp_path / "made"]
    code, message = refused(*command)
    assert code == 4 and "does not fit prior 'ddpm'" in message
    command += ["--set", "widths=[8,16]", "--set", "blocks=[1,1]"]
    assert succeed(*command).stdout == f"{tmp_path / 'w.pt'} [ema] -> {tmp_path / 'made'}\n"
    load_prior(tmp_path / "made")
    assert refused(*command)[0] == 2
    photo = save_photo(tmp_path / "a.png")
    code, message = refused("denoise", photo, "--noise", 1, "--prior", tmp_path / "w.pt")
    assert code == 4 and f"genprior import {tmp_path / 'w.pt'} --prior NAME -o FOLDER" in message


def test_no_other_file_is_unpickled() -> None:
    package = Path(genprior.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        if path.name != "weight_import.py":
            assert "torch.load(" not in text and "import pickle" not in text, path
        assert "weights_only=False" not in text and "allow_pickle=True" not in text, path


def test_damage_is_found_at_every_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPRIOR_HOME", str(tmp_path / "cache"))
    save_checkpoint(tmp_path / "w", "ddpm", CONFIG, weights())
    load_checkpoint(tmp_path / "w")
    path = tmp_path / "w" / "model.safetensors"
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(CheckpointError, match="corrupt: sha256"):
        load_checkpoint(tmp_path / "w")
    assert not (tmp_path / "cache").exists()
