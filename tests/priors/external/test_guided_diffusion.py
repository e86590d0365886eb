"""State dictionaries of guided-diffusion, compared with the network of deepinv."""

import inspect
import json
from pathlib import Path
from types import ModuleType

import deepinv.models.diffunet as diffunet
import numpy as np
import pytest
import torch
from shell import save_photo, sidecar, succeed

from genprior import load_prior
from genprior.core.errors import CheckpointError
from genprior.priors.external.guided_diffusion import GuidedUNet, Settings

ALPHAS = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
SMALL = {"model_channels = 128": "model_channels = 32", "(1, 1, 2, 2, 4, 4)": "(1, 2)",
         'attention_resolutions = "16"': 'attention_resolutions = "128"'}


def network(changes: dict[str, str]) -> torch.nn.Module:
    """Returns deepinv's DiffUNet with other settings, which its constructor fixes."""
    source = inspect.getsource(diffunet)
    for old, new in (SMALL | changes).items():
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    module = ModuleType(diffunet.__name__)
    module.__package__ = diffunet.__package__
    exec(compile(source, "diffunet", "exec"), module.__dict__)
    torch.manual_seed(0)
    unet = module.DiffUNet(pretrained=None).eval()
    with torch.no_grad():
        for p in unet.parameters():  # some are initialised to zero
            p.add_(0.05 * torch.randn(p.shape))
    return unet


def save(path: Path, unet: torch.nn.Module, **settings: object) -> Path:
    torch.save(unet.state_dict(), path)
    path.with_name(f"{path.name}.genprior.json").write_text(json.dumps(settings))
    return path


@pytest.mark.parametrize(("changes", "settings"), [
    ({}, {}),
    ({"num_head_channels = 64": "num_head_channels = 16"}, {"head_channels": 16}),
    ({"num_head_channels = 64": "num_head_channels = -1",
      "use_new_attention_order = False": "use_new_attention_order = True"},
     {"heads": 4, "new_attention_order": True}),
    ({"use_scale_shift_norm = True": "use_scale_shift_norm = False",
      "resblock_updown = True": "resblock_updown = False",
      "num_res_blocks = 1\n": "num_res_blocks = 2\n"}, {}),
], ids=["published", "heads", "order", "variant"])
def test_denoised_images_are_those_of_deepinv(
    tmp_path: Path, changes: dict[str, str], settings: dict
) -> None:
    unet = network(changes)
    prior = load_prior(save(tmp_path / "model.pt", unet, **settings))
    x = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    for t in (0, 400):
        a = ALPHAS[t]
        s = float(np.sqrt((1 - a) / a))
        u = 2 * x - 1
        with torch.no_grad():
            eps = unet.forward_diffusion(a**0.5 * u, torch.tensor([t, t]))[:, :3]
        expected = (u - s * eps + 1) / 2
        torch.testing.assert_close(prior.denoise(x, s / 2), expected, atol=1e-5, rtol=0)
    assert prior.denoise(x[..., :5, :7], 0.3).shape == (2, 3, 5, 7)


def test_a_class_is_given_by_the_settings(tmp_path: Path) -> None:
    unet = network({"num_classes = None": "num_classes = 5"})
    with pytest.raises(CheckpointError, match="has 5 classes, and class_label is None"):
        load_prior(save(tmp_path / "model.pt", unet))
    x = torch.rand(1, 3, 8, 8)
    s = float(np.sqrt((1 - ALPHAS[400]) / ALPHAS[400]))
    with torch.no_grad():
        eps = unet.forward_diffusion(
            (2 * x - 1) * ALPHAS[400] ** 0.5, torch.tensor([400]), y=torch.tensor([3])
        )[:, :3]
    prior = load_prior(save(tmp_path / "model.pt", unet, class_label=3))
    expected = (2 * x - 1 - s * eps + 1) / 2
    torch.testing.assert_close(prior.denoise(x, s / 2), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("large", [False, True], ids=["FFHQ", "ImageNet"])
def test_the_published_networks_have_this_structure(large: bool) -> None:
    with torch.device("meta"):
        theirs = diffunet.DiffUNet(pretrained=None, large_model=large).state_dict()
        ours = GuidedUNet(theirs, Settings(), new_order=False).state_dict()
    shapes = {k: v.shape for k, v in theirs.items() if not k.startswith("sqrt_")}
    assert {k: v.shape for k, v in ours.items()} == shapes


def test_a_restoration_from_the_shell(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", network({}))
    photo = save_photo(tmp_path / "a.png", size=(16, 21))
    succeed("deblur", photo, "--gaussian", 1, "--degrade", "--prior", path, "--steps", 2, "-q")
    assert sidecar(tmp_path / "a.genprior.png")["prior"]
    about = json.loads(succeed("priors", "info", path).stdout)
    assert about["attention_heads"] == [1, 1, 1, 1] and about["beta_schedule"] == "linear"


@pytest.mark.parametrize(("key", "settings", "message"), [
    ("out.2.bias", {}, "1 tensors are missing .out.2.bias"),
    (None, {"heads": 5}, "64 channels cannot be split into 5 heads"),
    ("output_blocks.1.2.in_layers.2.weight", {}, "cannot be built as a network of guided-diff"),
])
def test_other_variants_are_refused(
    tmp_path: Path, key: str | None, settings: dict, message: str
) -> None:
    unet = network({})
    path = save(tmp_path / "model.pt", unet, **settings)
    state = unet.state_dict()
    if key is not None:
        del state[key]
        torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_prior(path)
