"""What a path is, and refusals: nothing in a file is run."""

import argparse
import json
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from shell import refused, save_photo, sidecar, succeed
from torch import nn

from genprior import load_prior, restore
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError
from genprior.operators.denoising import Denoising
from genprior.priors.external import FILE_FORMATS, FOLDER_FORMATS
from genprior.priors.external.hub import download
from genprior.priors.external.weight_files import read_tensors
from genprior.registry import FORMATS

HUB_MISSING = 'huggingface_hub is missing: pip install "genprior[hub]"'


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def denoiser() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    return {f"model.{key}": value for key, value in layers.state_dict().items()}


@pytest.mark.parametrize("wrap", [
    lambda w: w, lambda w: {"params": w, "epoch": 3}, lambda w: {"state_dict": w},
    lambda w: {"ema": {f"module.{k}": v for k, v in w.items()}, "model": {}},
])
def test_weights_are_found_in_a_file_that_holds_more(tmp_path: Path, wrap) -> None:
    path, x = tmp_path / "net.pth", torch.rand(1, 1, 5, 6)
    torch.save(denoiser(), path)
    expected = load_prior(path).denoise(x, 0.1)
    for old in (True, False):
        torch.save(wrap(denoiser()), path, _use_new_zipfile_serialization=not old)
        assert torch.equal(load_prior(path).denoise(x, 0.1), expected)


def test_restore_takes_a_path_and_sees_its_changes(tmp_path: Path) -> None:
    path, y = tmp_path / "net.pth", torch.rand(1, 1, 8, 8)
    torch.save(denoiser(), path)
    first = restore(y, Denoising(), path, noise_std=0.1, solver="posterior-mean").image
    torch.save({key: 0 * value for key, value in denoiser().items()}, path)
    second = restore(y, Denoising(), path, noise_std=0.1, solver="posterior-mean").image
    torch.testing.assert_close(second, y)
    assert not torch.equal(first, second)


def test_objects_that_need_code_are_refused_and_not_run(tmp_path: Path) -> None:
    path, photo = tmp_path / "net.pt", save_photo(tmp_path / "a.png")
    for evil, named in ((Touch(tmp_path / "run"), ""), (argparse.Namespace(), "Namespace")):
        torch.save({"g_ema": denoiser(), "args": evil}, path)
        for words in (["priors", "info", path], ["denoise", photo, "--prior", path]):
            code, line = refused(*words)
            assert code == EXIT_WEIGHTS and "nothing in it was run" in line and named in line
        assert not (tmp_path / "run").exists()


def test_a_pickled_program_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "edm-cifar10-32x32-uncond-vp.pkl"
    path.write_bytes(pickle.dumps({"ema": Touch(tmp_path / "run")}))
    code, line = refused("priors", "info", path)
    assert code == EXIT_WEIGHTS and "is a pickled program, as of EDM" in line
    assert "save the state_dict of its network" in line and not (tmp_path / "run").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="net.pt: "):
        load_prior(path)
    torch.save({"a.weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"\(a.weight ...\) fit no .*genprior import"):
        load_prior(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="holds no dictionary of tensors"):
        load_prior(path)
    weights = denoiser()
    weights["model.0.bias"][0] = float("nan")
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match="model.0.bias holds NaN"):
        load_prior(path)
    (tmp_path / "net.safetensors").write_bytes(b"12345678901234567890")
    with pytest.raises(CheckpointError, match="or is damaged"):
        load_prior(tmp_path / "net.safetensors")
    torch.save({"conv_in.weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="give the folder"):
        load_prior(path)


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason=HUB_MISSING)
    torch.save(denoiser(), tmp_path / "net.pth")
    calls = []

    def snapshot(
        name: str, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str],
        local_files_only: bool,
    ) -> str:
        if "*.pth" in allow_patterns:
            calls.append((name, revision, local_files_only))
        if name == "org/none":
            raise hub.errors.LocalEntryNotFoundError("no network\nmore")
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    x = torch.rand(1, 1, 5, 6)
    expected = load_prior(tmp_path / "net.pth").denoise(x, 0.1)
    for where in ("hf:org/net", "hf:org/net@abc123", "hf:org/net@abc123"):
        assert torch.equal(load_prior(where).denoise(x, 0.1), expected)
    result = restore(x, Denoising(), "hf:org/net", noise_std=0.1, solver="posterior-mean")
    assert result.prior == "hf:org/net"
    assert calls == [("org/net", None, False), ("org/net", "abc123", False)]
    for where, message in (("hf:net", "write hf:ORG/NAME"), ("hf:org/none", r"\(no network\)")):
        with pytest.raises(CheckpointError, match=message):
            load_prior(where)


@pytest.mark.parametrize("part", ["unet", "transformer"])
def test_of_a_pipeline_only_the_parts_in_use_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason=HUB_MISSING)
    fetched: list[str] = []
    repository = ["model_index.json", f"{part}/config.json", f"{part}/weights.safetensors",
                  "unet/weights.fp16.safetensors", "all.safetensors", "vae/weights.bin",
                  "safety_checker/weights.bin", "tokenizer/merges.txt"]

    def snapshot(
        _: str, allow_patterns: list[str], ignore_patterns: list[str], **__: object
    ) -> str:
        fetched.extend(hub.utils.filter_repo_objects(
            repository, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns,
        ))
        (tmp_path / "model_index.json").write_text(json.dumps({part: ["diffusers", "Kind"]}))
        (tmp_path / part).mkdir(exist_ok=True)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    download.cache_clear()
    if part == "transformer":
        code, line = refused("priors", "info", "hf:org/flux")
        assert code == EXIT_WEIGHTS and "hf:org/flux: its network is a transformer" in line
        assert not [name for name in fetched if not name.endswith(".json")]
        return
    assert download("hf:org/sd") == tmp_path
    assert sorted(set(fetched)) == ["model_index.json", "tokenizer/merges.txt",
                                    "unet/config.json", "unet/weights.safetensors",
                                    "vae/weights.bin"]


def test_offline_and_the_format_from_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason=HUB_MISSING)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # is set back after this test
    torch.save(denoiser(), tmp_path / "net.pth")
    calls = []

    def snapshot(name: str, local_files_only: bool, **_: object) -> str:
        calls.append(local_files_only)  # of the descriptions, then of the weights
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    photo = save_photo(tmp_path / "a.png", channels=1)
    succeed("denoise", photo, "--noise", 0.1, "--prior", "hf:org/offline", "--offline", "--format",
            "convolutional-denoiser", "-q")
    assert calls == [True, True]
    told = sidecar(tmp_path / "a.genprior.png")
    assert "convolutional-denoiser:hf:org/offline" in json.dumps(told)
    code, line = refused("priors", "info", tmp_path / "net.pth", "--format", "drunet")
    assert code == EXIT_WEIGHTS and "is no file of drunet: it has no m_head.weight" in line


def test_the_registry_lists_the_formats() -> None:
    assert FORMATS == (*FILE_FORMATS, *FOLDER_FORMATS)


def test_our_own_checkpoint_on_the_hub(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason=HUB_MISSING)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(weights))
    downloaded, own = (load_prior(where).state_dict() for where in ("hf:org/own", weights))
    assert downloaded.keys() == own.keys()
    assert all(torch.equal(value, own[key]) for key, value in downloaded.items())


def test_missing_packages_name_their_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download.cache_clear()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CheckpointError, match=r'pip install "genprior\[hub\]"'):
        load_prior("hf:org/net")
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    (tmp_path / "scheduler_config.json").write_text('{"_class_name": "DDPMScheduler"}')
    with pytest.raises(CheckpointError, match=r'pip install "genprior\[diffusers\]"'):
        load_prior(tmp_path)


def test_a_name_that_ships_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vae:digits").mkdir()
    (tmp_path / "vae:digits" / "config.json").write_text("{}")
    assert type(load_prior("vae:digits")).__name__ == "VAE"


@pytest.mark.parametrize("pickled", [b"X", b"J", b"\x80\x02G\x00", b""])
def test_an_incomplete_pickle_is_refused(tmp_path: Path, pickled: bytes) -> None:
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / "sound.pt")
    file = tmp_path / "weights.pt"
    with zipfile.ZipFile(tmp_path / "sound.pt") as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(CheckpointError, match="weights.pt"):
        read_tensors(file)


def test_other_weights_by_a_flipped_bit_are_refused(tmp_path: Path) -> None:
    weights = torch.rand(1000)
    torch.save({"0.weight": weights}, tmp_path / "w.pt")
    data = bytearray((tmp_path / "w.pt").read_bytes())
    data[data.index(weights.numpy().tobytes()) + 100] ^= 1
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="w.pt: cannot be read as weights: .*checksum"):
        read_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize("weight", [
    torch.zeros(3, device="meta"), torch.zeros(3).to_sparse(),
    torch.zeros(3).to(torch.float8_e4m3fn),
], ids=["meta", "sparse", "float8"])
def test_weights_that_are_not_dense_numbers_are_refused(
    tmp_path: Path, weight: torch.Tensor
) -> None:
    torch.save({"0.weight": weight}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="w.pt: 0.weight is .*: save dense numbers"):
        read_tensors(tmp_path / "w.pt")
