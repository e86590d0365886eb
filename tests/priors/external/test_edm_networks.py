"""State dictionaries of EDM, compared with the networks of deepinv."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from deepinv.models import ADMUNet, NCSNpp
from safetensors.torch import save_file
from shell import refused, save_photo, sidecar, succeed
from torch import nn

from genprior import load_prior
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError
from genprior.priors.external.edm_networks import _structure

SMALL = {"img_resolution": 16, "model_channels": 32, "channel_mult": (1, 2), "num_blocks": 1,
         "attn_resolutions": (8,), "pretrained": None, "pixel_std": 0.5,
         "_was_trained_on_minus_one_one": True}
KINDS = {
    "NCSN++": lambda **other: NCSNpp(**SMALL | other),
    "DDPM++": lambda **other: NCSNpp(**SMALL | {"model_type": "ddpm"} | other),
    "ADM": lambda **other: ADMUNet(**SMALL | {"model_channels": 64} | other),
}
PUBLISHED = {
    "NCSN++": (NCSNpp, {}), "DDPM++": (NCSNpp, {"model_type": "ddpm"}),
    "CIFAR": (NCSNpp, {"img_resolution": 32, "channel_mult": (2, 2, 2)}),
    "ADM": (ADMUNet, {"label_dim": 1000}),
}


def network(kind: str, **other: object) -> nn.Module:
    torch.manual_seed(0)
    found = KINDS[kind](**other)
    with torch.no_grad():
        for p in found.parameters():  # some are initialised to nearly zero
            p.add_(0.05 * torch.randn(p.shape))
    return found


def save(path: Path, net: nn.Module, prefix: str = "", **settings: object) -> Path:
    save_file({prefix + key: value.contiguous() for key, value in net.state_dict().items()}, path)
    path.with_name(f"{path.name}.genprior.json").write_text(
        json.dumps({"groups": "deepinv", **settings})
    )
    return path


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("prefix", ["", "model."], ids=["network", "EDMPrecond"])
@pytest.mark.parametrize("kind", KINDS)
def test_denoised_images_are_those_of_deepinv(
    tmp_path: Path, x: torch.Tensor, kind: str, prefix: str
) -> None:
    theirs = network(kind)
    path = save(tmp_path / "edm.safetensors", theirs, prefix)
    prior = load_prior(path)
    for sigma in (0.002, 0.1, 3.0, torch.tensor([0.05, 0.7])):
        with torch.no_grad():
            expected = theirs(x, sigma)
        torch.testing.assert_close(prior.denoise(x, sigma), expected, atol=1e-5, rtol=0)
    assert prior.denoise(x[..., :5, :7], 0.3).shape == (2, 3, 5, 7)


def test_a_restoration_from_the_shell(tmp_path: Path) -> None:
    path = save(tmp_path / "edm.safetensors", network("NCSN++"))
    photo = save_photo(tmp_path / "a.png", size=(16, 21))
    succeed("deblur", photo, "--gaussian", 1, "--degrade", "--prior", path, "--steps", 2, "-q")
    assert sidecar(tmp_path / "a.genprior.png")["prior"] == str(path)
    about = json.loads(succeed("priors", "info", path).stdout)
    assert about["prior"] == "NCSN++ of 2 levels, 1 blocks a level, 32 channels"
    assert about["trained_size"] == 16 and about["noise_levels"] == [0.001, 40.0]


@pytest.mark.parametrize("kind", ["DDPM++", "ADM"])
def test_a_class_is_given_by_the_settings(tmp_path: Path, x: torch.Tensor, kind: str) -> None:
    theirs = network(kind, label_dim=5)
    path = tmp_path / "edm.safetensors"
    with pytest.raises(CheckpointError, match="has 5 classes, and class_label is None"):
        load_prior(save(path, theirs))
    prior = load_prior(save(path, theirs, class_label=3))
    labels = torch.eye(5)[[3, 3]]
    with torch.no_grad():
        expected = theirs(x, 0.2, class_labels=labels)
    torch.testing.assert_close(prior.denoise(x, 0.2), expected, atol=1e-5, rtol=0)


def test_groups_and_the_standard_deviation_are_settings(tmp_path: Path, x: torch.Tensor) -> None:
    theirs = network("DDPM++", pixel_std=0.7)
    path = save(tmp_path / "edm.safetensors", theirs, groups=None)
    code, line = refused("priors", "info", path)
    assert code == EXIT_WEIGHTS and 'write {"groups": "edm"} or {"groups": "deepinv"}' in line
    for layer in theirs.modules():
        if isinstance(layer, nn.GroupNorm):  # the rule of EDM
            layer.num_groups = min(32, layer.num_channels // 4)
    with torch.no_grad():
        expected = theirs(x, 0.2)
    found = load_prior(path, groups="edm", data_std=0.7).denoise(x, 0.2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match="standard deviation of the data must be > 0, got 0"):
        load_prior(path, groups="edm", data_std=0)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_published_networks_have_this_structure(kind: str) -> None:
    cls, settings = PUBLISHED[kind]
    with torch.device("meta"):
        theirs = cls(pretrained=None, **settings).state_dict()
        found, structure = _structure({key: tuple(v.shape) for key, v in theirs.items()})
        ours = found(**structure).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_other_variants_are_refused(tmp_path: Path) -> None:
    state, path = network("DDPM++").state_dict(), tmp_path / "edm.pt"
    for key, message in (("map_layer0.bias", "1 tensors are missing .map_layer0.bias"),
                         ("enc.16x16_conv.weight", "cannot be built as a network of EDM")):
        torch.save({k: v for k, v in state.items() if k != key}, path)
        with pytest.raises(CheckpointError, match=message):
            load_prior(path)


class Program:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pkl", ".pt"])
def test_the_pickled_program_is_refused_and_not_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"edm-ffhq-64x64-uncond-vp{suffix}"
    path.write_bytes(pickle.dumps({"ema": Program(tmp_path / "run")}))
    code, line = refused("priors", "info", path)
    assert code == EXIT_WEIGHTS and "state_dict" in line
    assert not (tmp_path / "run").exists()
