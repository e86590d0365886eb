"""Import of weight files: files that would run code or do not fit the prior are refused."""

import os
import random
import re
import resource
import zipfile
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
        r"network.tail.bias is torch.float32 of shape \(4,\), prior 'ddpm' has float16.*\(3,\)",
    ),
    "a type is wrong": (
        lambda w: w | {"network.tail.bias": torch.zeros(3, dtype=torch.int64)}, "int64 of shape"
    ),
    "a number is NaN": (
        lambda w: w | {"network.tail.bias": torch.full((3,), torch.nan)}, "holds NaN or infinite"
    ),
    "a number is too large": (
        lambda w: w | {"network.tail.bias": torch.full((3,), 1e300, dtype=torch.float64)},
        "network.tail.bias holds numbers that are too large for float32",
    ),
    "a type is too small": (
        lambda w: w | {"network.tail.bias": torch.zeros(3).to(torch.float8_e4m3fn)},
        "network.tail.bias is torch.float8_e4m3fn of shape",
    ),
    "it is sparse": (
        lambda w: w | {"network.tail.bias": torch.zeros(3).to_sparse()}, "network.tail.bias is"
    ),
    "it has no values": (
        lambda w: w | {"network.tail.bias": torch.zeros(3, device="meta")}, "without values of sh"
    ),
    "a key is there twice": (
        lambda w: w | {"module.network.tail.bias": torch.ones(3)},
        "holds network.tail.bias twice, as network.tail.bias and as module.network.tail.bias",
    ),
    "it holds no weights": (lambda w: {"epoch": 3}, "holds no dictionary of tensors, nor one un"),
    "it is no dictionary": (lambda w: [1, 2], "holds no dictionary of tensors"),
    "it holds an object": (lambda w: w | {"x": DDPM(**CONFIG)}, "nothing in it was run"),
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
    with pytest.raises(CheckpointError, match="the Python object .*mkdir.* nothing in it was run"):
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
        with pytest.raises(CheckpointError, match="w.pth: cannot be read as weights: .*; noth"):
            import_weights(path, tmp_path / "made", "ddpm", CONFIG)
    path.unlink()
    with pytest.raises(CheckpointError, match="w.pth: no such file"):
        import_weights(path, tmp_path / "made", "ddpm", CONFIG)


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    path, rng = tmp_path / "w.pth", random.Random(0)
    torch.save(weights(), path)
    data, expected = path.read_bytes(), weights()
    refusals = 0
    for number in range(40):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            import_weights(path, tmp_path / str(number), "ddpm", CONFIG)
        except CheckpointError:
            refusals += 1
        else:  # a bit of the padding
            state = load_checkpoint(tmp_path / str(number))[0].state_dict()
            assert all(torch.equal(state[key], value) for key, value in expected.items())
    assert refusals >= 30


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as file:
            for _ in range(512):
                file.write(bytes(2**20))
        archive.writestr("archive/version", "3")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="its entries are compressed"):
        import_weights(path, tmp_path / "made", "ddpm", CONFIG)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10**5  # kilobytes


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_only_regular_files_are_imported(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.pth"
    make = {"fifo": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": os.mkdir}
    make[kind](path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        import_weights(path, tmp_path / "made", "ddpm", CONFIG)


@pytest.mark.parametrize("word, message", [
    ("widths=[]", "widths must be"), ("widths=[-8,8]", "widths must be"),
    ("blocks=[10000000,1]", "blocks per level must be"), ("noise_mean=x", "noise_mean: Expected"),
    ("widths=" + "[" * 5000, "widths: it is nested too deeply"),
])
def test_wrong_arguments_are_named(tmp_path: Path, word: str, message: str) -> None:
    torch.save(weights(), tmp_path / "w.pt")
    photo = save_photo(tmp_path / "a.png")
    for command in (
        ["import", tmp_path / "w.pt", "--prior", "ddpm", "-o", tmp_path / "made"],
        ["train", "ddpm", photo, "-o", tmp_path / "run", "--steps", 1],
    ):
        code, text = refused(*command, "--set", word)
        assert code == 2 and message in text and len(text) < 500


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


# The first reads tensors only; the second is for operators that the user pickles.
READ_CHECKED = ("weight_files.py", "physics_pickling.py")


def test_no_other_file_is_unpickled() -> None:
    package = Path(genprior.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        if path.name not in READ_CHECKED:
            assert not re.search(r"torch\.load\(|import pickle\b", text), path
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
