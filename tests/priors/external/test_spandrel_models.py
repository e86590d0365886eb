"""Denoisers of spandrel, written as their files are and compared with spandrel's own images."""

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
from shell import refused, save_photo, sidecar, succeed
from torch import nn

from genprior import load_prior
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError
from genprior.priors.external.single_level import denoise_any

SPANDREL_MISSING = 'spandrel is missing: pip install "genprior[spandrel]"'
EXTRA_MISSING = "spandrel_extra_arches is missing: pip install spandrel_extra_arches"
with warnings.catch_warnings(action="ignore"):  # of its use of torch.jit
    spandrel = pytest.importorskip("spandrel", reason=SPANDREL_MISSING)


pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "SCUNet":
        from spandrel.architectures.SCUNet import SCUNet

        return SCUNet(in_nc=3, config=[1] * 7, dim=64)  # its heads have 32 channels
    if kind == "SwinIR":
        from spandrel.architectures.SwinIR import SwinIR

        return SwinIR(img_size=16, window_size=8, depths=[1, 1], embed_dim=12, num_heads=[2, 2],
                      upscale=1, upsampler="", img_range=1.0, in_chans=1)
    if kind == "NAFNet":
        from spandrel.architectures.NAFNet import NAFNet

        net = NAFNet(img_channel=3, width=8, middle_blk_num=1, enc_blk_nums=[1, 1],
                     dec_blk_nums=[1, 1])
        for value in net.parameters():  # the factors of its blocks begin with zeros
            value.data = value.data + 0.05 * torch.randn_like(value)
        return net
    from spandrel_extra_arches.architectures.Restormer import Restormer

    return Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, heads=[1, 2, 2, 4],
                     bias=False, LayerNorm_type="BiasFree")


# Names as of the published files; the noise level of each in units of [0, 1], None for blind.
FILES = {
    "SCUNet": ("scunet_color_25.pth", 25 / 255),
    "SwinIR": ("004_grayDN_DFWB_s128w8_SwinIR-M_noise50.pth", 50 / 255),
    "NAFNet": ("NAFNet-SIDD-width32.pth", None),
    "Restormer": ("gaussian_color_denoising_blind.pth", None),
}


@pytest.mark.parametrize("kind", FILES)
def test_images_and_restorations_are_those_of_spandrel(tmp_path: Path, kind: str) -> None:
    if kind == "Restormer":
        extra = pytest.importorskip("spandrel_extra_arches", reason=EXTRA_MISSING)
        extra.install(ignore_duplicates=True)
    name, level = FILES[kind]
    path = tmp_path / name
    torch.save({"params": network(kind).state_dict()}, path)
    theirs = spandrel.ModelLoader().load_from_file(path)
    prior, channels = load_prior(path), theirs.input_channels
    assert prior.noise_level == level
    x = torch.rand(2, channels, 40, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.model.eval()(x)
        found = prior.denoise(x, level or 0.3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    clipped = theirs(x[:1])  # the call of the library clips
    torch.testing.assert_close(found[:1].clamp(0, 1), clipped, atol=1e-5, rtol=0)
    about = json.loads(succeed("priors", "info", path).stdout)
    assert about["format"] == "spandrel" and about["prior"] == kind
    assert about["noise_levels"] == (level or "blind") and "hqs" in about["solvers"]
    photo = save_photo(tmp_path / "a.png", channels=channels, size=(17, 21))
    succeed("deblur", photo, "--prior", path, "--gaussian", 1, "--degrade", "--steps", 2, "-q")
    assert str(path) in json.dumps(sidecar(tmp_path / "a.genprior.png"))


def test_any_size_and_other_levels(tmp_path: Path) -> None:
    path = tmp_path / "swinir.pth"
    net = network("SwinIR").eval()
    torch.save(net.state_dict(), path)
    prior, x = load_prior(path, noise_level=0.1), torch.rand(2, 1, 24, 16)
    with torch.no_grad():
        for sigma in (0.02, 0.3, torch.tensor([0.05, 0.2])):
            level = torch.as_tensor(sigma).reshape(-1, 1, 1, 1).expand(2, 1, 1, 1)
            expected = denoise_any(lambda u: u - net(u), x, level, 0.1)
            torch.testing.assert_close(prior.denoise(x, sigma), expected, atol=1e-5, rtol=0)
        for size in ((1, 1), (5, 30), (17, 9)):
            image = torch.rand(1, 1, *size)
            assert prior.denoise(image, 0.1).shape == image.shape
    with pytest.raises(ValueError, match="takes images of 1 channel"):
        prior.denoise(torch.rand(1, 3, 8, 8), 0.1)


def test_the_noise_must_be_known(tmp_path: Path) -> None:
    path = tmp_path / "NAFNet-GoPro-width32.pth"
    torch.save(network("NAFNet").state_dict(), path)
    code, line = refused("priors", "info", path)
    assert code == EXIT_WEIGHTS and "does not show for which noise it was trained" in line
    assert 'write {"noise_level": 0.098}' in line and f"{path.name}.genprior.json" in line
    path.with_name(f"{path.name}.genprior.json").write_text('{"blind": true}')
    assert load_prior(path).noise_level is None
    assert load_prior(path, blind=False, noise_level=0.2).noise_level == 0.2
    with pytest.raises(CheckpointError, match=r"noise_level must be in \(0, 1\), got 25"):
        load_prior(path, noise_level=25)


def test_networks_that_denoise_nothing_are_refused(tmp_path: Path) -> None:
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.FBCNN import FBCNN

    path = tmp_path / "4x_network.pth"
    for net, message in (
        (ESRGAN(num_filters=8, num_blocks=1, scale=4), "ESRGAN, which enlarges images 4"),
        (FBCNN(nc=[4, 4, 4, 4], nb=2), "FBCNN, which restores images otherwise"),
    ):
        torch.save(net.state_dict(), path)
        code, line = refused("priors", "info", path)
        assert code == EXIT_WEIGHTS and message in line
        assert "choose a denoiser (SCUNet, SwinIR, NAFNet" in line


def test_a_file_that_spandrel_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a.weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="spandrel knows no network with these tensors"):
        load_prior(f"spandrel:{path}")


def test_without_spandrel_a_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pth"
    torch.save(network("SwinIR").state_dict(), path)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(CheckpointError, match=r'pip install "genprior\[spandrel\]"'):
        load_prior(f"spandrel:{path}")
    with pytest.raises(CheckpointError, match="fit no known format .*spandrel"):
        load_prior(path)
