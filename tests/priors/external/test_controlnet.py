"""ControlNets, written by diffusers and compared with its networks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from latent_folder import autoencoder, diffusers, network, prompts, save
from PIL import Image
from shell import refused, save_photo, sidecar, succeed

from genprior import load_prior, sample
from genprior.core.errors import CheckpointError


def controlnet(unet: torch.nn.Module) -> torch.nn.Module:
    """A ControlNet for a network, with weights that are not zero."""
    torch.manual_seed(4)
    control = diffusers.ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(8, 8)
    ).eval()
    with torch.no_grad():
        for p in control.parameters():
            p += 0.05 * torch.randn(p.shape)
    return control


def save_edges(path: Path, height: int, width: int) -> torch.Tensor:
    random = np.random.default_rng(0)
    edges = (255 * (random.random((height, width)) > 0.7)).astype(np.uint8)
    Image.fromarray(edges).save(path)
    return torch.from_numpy(edges / 255).float().expand(1, 3, -1, -1)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    save(tmp_path / "ldm", autoencoder(), network())
    controlnet(network()).save_pretrained(tmp_path / "edges")
    return tmp_path / "ldm", tmp_path / "edges"


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_prediction_is_that_of_the_networks_of_diffusers(folders, tmp_path, guidance):
    image = save_edges(tmp_path / "edges.png", 15, 22)
    told = {"control": str(folders[1]), "control_image": tmp_path / "edges.png"}
    prior = load_prior(folders[0], guidance=guidance, control_scale=0.8, **told)
    unet, control = network(), controlnet(network())
    x = torch.rand(2, 3, 15, 22, generator=torch.Generator().manual_seed(3))
    z = prior.encode(x)
    assert z.shape == (2, 4, 8, 12) and prior.sample_size == (15, 22)
    padded = torch.nn.functional.pad(image, (0, 2, 0, 1), mode="reflect").expand(2, -1, -1, -1)
    a = diffusers.DDIMScheduler(beta_schedule="scaled_linear").alphas_cumprod[400]
    s, out = ((1 - a) / a).sqrt(), []
    for text in prompts().values():
        states = text.expand(2, -1, -1)
        with torch.no_grad():
            down, middle = control(
                a.sqrt() * z, 400, encoder_hidden_states=states, controlnet_cond=padded,
                conditioning_scale=0.8, return_dict=False,
            )
            out.append(unet(
                a.sqrt() * z, 400, encoder_hidden_states=states,
                down_block_additional_residuals=down, mid_block_additional_residual=middle,
            ).sample)
    expected = z - s * (out[1] + guidance * (out[0] - out[1]))
    found = prior.denoise_latents(z, s.item())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    without = load_prior(folders[0], guidance=guidance).denoise_latents(z, s.item())
    assert (found - without).abs().max() > 1e-3


def test_restorations_and_samples_take_one_from_the_shell(folders, tmp_path):
    photo, edges = save_photo(tmp_path / "a.png", size=(8, 12)), tmp_path / "edges.png"
    save_edges(edges, 8, 12)
    given = ["--control", folders[1], "--control-image", edges, "--control-scale", 0.5]
    succeed("inpaint", photo, "--prior", folders[0], "--mask", "box=4x4", "--degrade", "--solver",
            "psld", "--steps", 2, "-q", *given)
    assert sidecar(tmp_path / "a.genprior.png")["prior_settings"] == {
        "control": str(folders[1]), "control_image": str(edges), "control_scale": 0.5}
    evaluate = ["evaluate", tmp_path / "a.png", "--prior", folders[0], "--solver", "psld", "-q",
                "--steps", 2, "--task", "denoise:noise=0.1", "-o", tmp_path / "results", *given]
    succeed(*evaluate)
    (folders[1] / "note.txt").write_text("another ControlNet")
    code, line = refused(*evaluate)
    assert code and "prior settings" in line
    (folders[0] / "genprior.json").write_text(
        json.dumps({"control": "../edges", "control_image": "../edges.png"}))
    about = json.loads(succeed("priors", "info", folders[0]).stdout)["control"]
    assert about["folder"] == "edges" and about["size"] == [8, 12] and about["scale"] == 1
    assert sample(folders[0], 2, steps=2).shape == (2, 3, 8, 12)
    code, line = refused("priors", "export", folders[0], "-o", tmp_path / "copy", "--format",
                         "diffusers", "--licence", "mit")
    assert code and "export the prior without control" in line
    assert not (tmp_path / "copy").exists()


def test_what_does_not_fit_is_refused(folders, tmp_path):
    edges = tmp_path / "edges.png"
    save_edges(edges, 8, 8)
    (tmp_path / "text.png").write_text("no image")
    other = network(conditional=True, block_out_channels=(4, 16))
    controlnet(other).save_pretrained(tmp_path / "other")
    for told, message in (
        ({"control": folders[1]}, "a ControlNet needs both: control, its folder, and control_im"),
        ({"control_scale": 2.0}, "control_scale is the factor of control"),
        ({"control": folders[1], "control_image": edges, "control_scale": -1.0}, "must be >= 0"),
        ({"control": folders[0] / "unet", "control_image": edges},
         "holds a UNet2DConditionModel, not a ControlNetModel"),
        ({"control": folders[1], "control_image": tmp_path / "none.png"},
         "cannot be read .No such file"),
        ({"control": folders[1], "control_image": tmp_path / "text.png"}, "cannot be read"),
        ({"control": tmp_path / "other", "control_image": edges},
         r"block_out_channels \[4, 16\], and the UNet \[8, 16\]: the ControlNet is for another"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_prior(folders[0], **told)
    prior = load_prior(folders[0], control=folders[1], control_image=edges)
    with pytest.raises(ValueError, match=r"has 8 x 8 pixels, and the image \(padded\) 16 x 12"):
        prior.denoise_latents(torch.zeros(1, 4, 6, 8), 0.5)
