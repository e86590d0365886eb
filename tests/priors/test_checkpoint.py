import hashlib
import json
import os
import random
import resource
import shutil
import struct
import time

import pytest
import torch

from genprior import registry
from genprior.api.factory import load_checkpoint
from genprior.core.errors import CheckpointError
from genprior.priors import checkpoint
from genprior.priors.checkpoint import read_manifest, save_checkpoint
from genprior.priors.ddpm import DDPM
from genprior.priors.pca import PCA
from genprior.priors.weights import embedded_priors
from genprior.registry import find_prior


@pytest.fixture
def saved(tmp_path):
    prior = DDPM(widths=(8, 16), blocks=(1, 1))
    generator = torch.Generator().manual_seed(0)
    half = {  # no zero layers; the last layer of an untrained network is zero
        key: 0.1 * torch.randn(value.shape, generator=generator).half()
        for key, value in prior.state_dict().items()
    }
    prior.load_state_dict({key: value.float() for key, value in half.items()})
    save_checkpoint(tmp_path / "run", "ddpm", prior.config, half, about={"data": "none"})
    return prior, tmp_path / "run"


def test_a_prior_comes_back(saved):
    prior, folder = saved
    loaded, manifest = load_checkpoint(folder)
    x = torch.rand(1, 3, 8, 8)
    again, fresh = loaded.state_dict(), DDPM(**prior.config)
    assert all(torch.equal(again[key], value) for key, value in prior.state_dict().items())
    assert torch.allclose(loaded.denoise(x, 0.1), prior.denoise(x, 0.1), atol=1e-5)
    assert (loaded.denoise(x, 0.1) - fresh.denoise(x, 0.1)).abs().max() > 1e-3
    assert manifest["data"] == "none" and not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize(
    "about, symmetries",
    [({}, [0, 1, 2, 3, 4, 5, 6, 7]), ({"turn": False}, [0, 4]), ({"flip": False}, [0, 1, 2, 3]),
     ({"flip": False, "turn": False}, [0])],
)
def test_a_prior_has_the_symmetries_of_its_training_images(tmp_path, about, symmetries):
    prior = DDPM(widths=(8, 16), blocks=(1, 1))
    save_checkpoint(tmp_path, "ddpm", prior.config, prior.state_dict(), about=about)
    assert list(load_checkpoint(tmp_path)[0].symmetries) == symmetries


def test_every_flipped_bit_and_every_truncation_is_refused(saved):
    folder = saved[1]
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        with pytest.raises(CheckpointError, match="corrupt: sha256 is .*, expected"):
            load_checkpoint(folder)
        path.write_bytes(data[:position])
        with pytest.raises(CheckpointError, match=f"corrupt: {position} bytes, expected"):
            load_checkpoint(folder)


def change_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def listed(folder, **changes):
    """Returns the entry of the model in the manifest, changed."""
    entry = read_manifest(folder)["files"]["model.safetensors"]
    return {"files": {"model.safetensors": entry | changes}}


MANIFESTS = {
    "no checksum": lambda f: {"files": {"model.safetensors": {"bytes": 8}}},
    "null instead of an entry": lambda f: {"files": {"model.safetensors": None}},
    "null instead of files": lambda f: {"files": None},
    "a list of files": lambda f: {"files": ["model.safetensors"]},
    "a checksum that is a number": lambda f: listed(f, sha256=3),
    "a short checksum": lambda f: listed(f, sha256="abc"),
    "a size that is text": lambda f: listed(f, bytes="9"),
    "a negative size": lambda f: listed(f, bytes=-1),
    "a configuration that is a list": lambda f: {"config": [1]},
    "a prior that is a number": lambda f: {"prior": 3},
    "a file elsewhere": lambda f: {"files": {
        **listed(f)["files"], "../../etc/passwd": {"sha256": "0" * 64, "bytes": 8}}},
    "an absolute name": lambda f: {"files": {
        **listed(f)["files"], "/etc/passwd": {"sha256": "0" * 64, "bytes": 8}}},
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_of_another_form_is_refused(saved, kind):
    change_manifest(saved[1], **MANIFESTS[kind](saved[1]))
    with pytest.raises(CheckpointError, match="manifest.json is not a readable") as refused:
        load_checkpoint(saved[1])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("depth", [200, 5000, 100_000])
def test_a_deep_manifest_is_refused(saved, depth):
    text = (saved[1] / "manifest.json").read_text().rstrip()[:-1]
    (saved[1] / "manifest.json").write_text(f'{text}, "x": {"[" * depth}{"]" * depth}}}')
    with pytest.raises(CheckpointError, match="nested too deeply"):
        load_checkpoint(saved[1])


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_only_regular_files_are_read(saved, name, kind):
    path = saved[1] / name
    path.unlink()
    make = {"fifo": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": os.mkdir}
    make[kind](path)
    with pytest.raises(CheckpointError, match="regular file"):
        load_checkpoint(saved[1])


def test_the_checksum_of_a_linked_file_is_not_told(saved, tmp_path):
    path, secret = saved[1] / "model.safetensors", tmp_path / "secret"
    data = path.read_bytes()
    secret.write_bytes(b"x" * len(data))
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(CheckpointError, match="sha256 is another, expected"):
        load_checkpoint(saved[1])
    secret.write_bytes(data)  # as in the cache of huggingface_hub
    load_checkpoint(saved[1])


@pytest.mark.parametrize("config, message", [
    ({"widths": [3000, 8], "blocks": [1, 1]}, "do not fit"),
    ({"widths": [8, 16], "blocks": [10_000_000, 1]}, "cannot be built .blocks per level must be"),
    ({"widths": [8] * 16, "blocks": [1000] * 16}, "cannot be built .it has more than"),
    ({"widths": [], "blocks": []}, "widths must be 1 to 16 whole numbers in 1 ... 65536, got"),
    ({"widths": [-8, 8], "blocks": [1, 1]}, "widths must be"),
    ({"widths": "ab", "blocks": [1, 1]}, "widths: Expected"),
    ({"widths": [8, 16], "blocks": [1]}, "blocks must hold a number for each of the 2 widths"),
    ({"noise_mean": "x"}, "noise_mean: Expected `float`"),
    ({"noise_mean": 10**400}, "noise_mean: Number out of range"),
    ({"holes": 3}, "holes: Expected `bool`"),
])
def test_a_hostile_configuration_is_refused_at_once(saved, config, message):
    change_manifest(saved[1], config={"channels": 3, **config})
    started, allocated = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved[1])
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - allocated < 10**5  # kilobytes


@pytest.mark.parametrize("prior, config", [
    ("vae", {"latent": -1}), ("vae", {"widths": []}), ("vae", {"size": [0, 8]}),
    ("vae", {"blocks": 10**9}), ("hvae", {"groups": [10**9, 1], "widths": [4, 8]}),
    ("gan", {"latent": 0}), ("gan", {"widths": [8, True]}), ("glow", {"levels": 10**9}),
    ("glow", {"depth": 10**9}), ("glow", {"logit": 1e300}),
    ("pca", {"shape": [1, 3, 4], "components": -1, "floor": 0.0}),
    ("pca", {"shape": [1, 3, 4], "components": 2, "floor": 1e300}),
    ("pca", {"shape": [1, -3, 4], "components": 2, "floor": 0.0}),
    ("pca", {"shape": [], "components": 2, "floor": 0.0}),
    ("texture", {"shape": [1, -3, 4], "margin": 0, "floor": 0.0}),
    ("texture", {"shape": [1, 3, 4], "margin": 10**30, "floor": 0.0}),
    ("ddpm", {"schedule": "foo"}), ("ddpm", {"channels": 0}),
])
def test_hostile_configurations_of_all_priors(saved, prior, config):
    change_manifest(saved[1], prior=prior, config=config)
    with pytest.raises(CheckpointError, match="cannot be built|do not fit"):
        load_checkpoint(saved[1])


def write_model(folder, data):
    """Replaces the model of a checkpoint by these bytes, with the right checksum."""
    (folder / "model.safetensors").write_bytes(data)
    sum = hashlib.sha256(data).hexdigest()
    change_manifest(folder, **listed(folder, sha256=sum, bytes=len(data)))


@pytest.mark.parametrize("kind, bits", [("F4", 4), ("F8_E8M0", 8), ("F8_E4M3", 8), ("C64", 64)])
def test_numbers_of_other_types_are_refused(saved, kind, bits):
    tensors, end = {}, 0
    for key, value in saved[0].state_dict().items():
        start, end = end, end + -(-value.numel() * bits // 8)
        tensors[key] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [start, end]}
    header = json.dumps(tensors).encode()
    write_model(saved[1], struct.pack("<Q", len(header)) + header + bytes(end))
    with pytest.raises(CheckpointError, match="weights .*(hold|not a safetensors)"):
        load_checkpoint(saved[1])


def test_files_without_tensors_are_refused(saved):
    for data in (b"", b"x", struct.pack("<Q", 2**63), struct.pack("<Q", 2) + b"{}"):
        write_model(saved[1], data)
        with pytest.raises(CheckpointError, match="not a safetensors file|not fit"):
            load_checkpoint(saved[1])


def test_double_weights_beyond_single_precision_are_refused(saved):
    model = {key: value.double() for key, value in saved[0].state_dict().items()}
    save_checkpoint(saved[1], "ddpm", saved[0].config, model)
    load_checkpoint(saved[1])
    model["network.tail.bias"][0] = 1e300
    save_checkpoint(saved[1], "ddpm", saved[0].config, model)
    with pytest.raises(CheckpointError, match="too large for float32 in network.tail.bias"):
        load_checkpoint(saved[1])


def test_a_folder_without_manifest_is_not_a_checkpoint(saved):
    folder = saved[1]
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_checkpoint(folder)


def test_weights_of_another_configuration_are_refused(saved):
    folder = saved[1]
    manifest = read_manifest(folder)
    manifest["config"]["widths"] = [8, 24]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_checkpoint(folder)


def refuse_damage(source, folder, flips, cuts):
    """Flips one bit, then truncates, at random places; every time loading must be refused."""
    shutil.copytree(source, folder)
    path, data = folder / "model.safetensors", (source / "model.safetensors").read_bytes()
    rng = random.Random(0)
    whole = hashlib.sha256(data).hexdigest()
    for number in range(flips + cuts):
        damaged = bytearray(data)
        if number < flips:
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(data)) :]
        path.write_bytes(damaged)
        actual = hashlib.sha256(damaged).hexdigest()
        with pytest.raises(CheckpointError) as refused:
            load_checkpoint(folder)
        message, told = str(refused.value), (whole, actual)
        if number >= flips:  # the size shows it before the file is read
            told = (f"{len(damaged)} bytes, expected {len(data)}",)
        assert all(part in message for part in (str(path), *told, "restore the file"))
    path.write_bytes(data)
    load_checkpoint(folder)


def test_damaged_weights_are_refused(saved, tmp_path):
    refuse_damage(saved[1], tmp_path / "copy", flips=40, cuts=10)


@pytest.mark.slow
def test_damage_to_the_weights_that_ship_is_refused(tmp_path):
    refuse_damage(find_prior("ddpm"), tmp_path / "copy", flips=400, cuts=100)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"schema": 2}', "[1]", '{"schema": 1, "files": {"model.safetensors": {}}}']
)
def test_a_broken_manifest_is_named(saved, text):
    (saved[1] / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest.json is not a readable"):
        load_checkpoint(saved[1])


@pytest.mark.parametrize(
    "change, words",
    [({"prior": "foo"}, "unknown prior 'foo'"), ({"config": {"depth": 3}}, "'depth'"),
     ({"config": {"channels": 3, "objective": "foo"}}, "foo")],
)
def test_a_prior_that_this_version_does_not_have_is_refused(saved, change, words):
    path = saved[1] / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=f"cannot be built .*{words}.* update genprior"):
        load_checkpoint(saved[1])


def test_the_newest_complete_checkpoint_of_a_run_is_taken(tmp_path):
    for step in (1, 2, 3):
        model = {"w": torch.full((1,), float(step))}
        save_checkpoint(tmp_path / f"step-{step:08d}", "ddpm", {}, model, about={"step": step})
    os.unlink(tmp_path / "step-00000003" / "manifest.json")
    from genprior.priors.checkpoint import newest

    assert read_manifest(newest(tmp_path))["step"] == 2


def test_small_variances_are_packed_whole(tmp_path):
    vectors = torch.linalg.qr(torch.randn(12, 2, generator=torch.Generator().manual_seed(0))).Q
    prior = PCA(torch.zeros(1, 3, 4), vectors.T.reshape(2, 1, 3, 4), torch.tensor([1.0, 1e-9]), 0)
    save_checkpoint(tmp_path / "run", "pca", prior.config, prior.state_dict())
    checkpoint.pack(tmp_path / "run", tmp_path / "packed", {})
    assert torch.equal(load_checkpoint(tmp_path / "packed")[0].variances, prior.variances)


def test_packed_checkpoints_have_files_of_bounded_size(tmp_path, monkeypatch):
    torch.manual_seed(0)
    prior = DDPM(widths=(8, 16), blocks=(1, 1), holes=True)
    model = prior.state_dict()
    save_checkpoint(tmp_path / "run", "ddpm", prior.config, model)
    monkeypatch.setattr(checkpoint, "LARGEST", 60_000)
    checkpoint.pack(tmp_path / "run", tmp_path / "packed", {})
    names = sorted(file.name for file in tmp_path.glob("packed/*.safetensors"))
    assert len(names) > 2 and names[:2] == ["model-2.safetensors", "model-3.safetensors"]
    assert "model.safetensors" in names
    assert all((tmp_path / "packed" / name).stat().st_size < 65_000 for name in names)
    again, manifest = load_checkpoint(tmp_path / "packed")
    for key, value in again.state_dict().items():
        kept = model[key].half().float() if model[key].ndim > 1 else model[key]
        assert torch.equal(value, kept)
    prints = {checkpoint.fingerprint(manifest), manifest["files"]["model.safetensors"]["sha256"]}
    assert len(prints) == 2
    with open(tmp_path / "packed" / "model-2.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors are corrupt"):
        load_checkpoint(tmp_path / "packed")


def test_unknown_priors_list_the_known_ones(monkeypatch, tmp_path):
    ways = {
        (): "'dpmm': give the folder of a checkpoint$",
        ("ddpm", "vae"): "'dpmm': choose one of ddpm, vae, or give the folder of a checkpoint$",
    }
    for ship, message in ways.items():
        ships = dict.fromkeys(ship, tmp_path)
        monkeypatch.setattr(registry, "embedded_priors", lambda ships=ships: ships)
        with pytest.raises(CheckpointError, match=message):
            find_prior("dpmm")
    with pytest.raises(CheckpointError, match="'texture' has no weights, it is estimated from a"):
        find_prior("texture")


@pytest.mark.parametrize("name", embedded_priors())
def test_weights_that_ship_are_sound(name):
    folder = find_prior(name)
    prior, manifest = load_checkpoint(folder)
    assert all(p.isfinite().all() for p in prior.parameters())
    assert all(file.stat().st_size <= 16 * 2**20 for file in folder.iterdir())
    assert {"data", "step", "seed", "commit", "config"} <= manifest.keys()
