"""Denoisers of spandrel, written as their files are and compared with spandrel's own images."""

import json
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch
from shell import refused, save_photo, sidecar, succeed
from torch import nn

from genprior import load_prior
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError
from genprior.priors.external.single_level import denoise_any
from genprior.priors.external.spandrel_models import DENOISERS

SPANDREL_MISSING = 'spandrel is missing: pip install "genprior[spandrel]"'
EXTRA_MISSING = "spandrel_extra_arches is missing: pip install spandrel_extra_arches"
with warnings.catch_warnings(action="ignore"):  # of its use of torch.jit
    spandrel = pytest.importorskip("spandrel", reason=SPANDREL_MISSING)


pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


FOUR, NINE, HEADS = [1, 1, 1, 1], [1] * 9, [1, 1, 2, 2]
# Small networks of every architecture, with the arguments of their classes.
SMALL: dict[str, tuple[str, dict]] = {
    "SCUNet": ("SCUNet", {"in_nc": 3, "config": [1] * 7, "dim": 64}),  # heads of 32 channels
    "SwinIR": ("SwinIR", {"img_size": 16, "window_size": 8, "depths": [1, 1], "embed_dim": 12,
                          "num_heads": [2, 2], "upscale": 1, "upsampler": "", "img_range": 1.0,
                          "in_chans": 1}),
    "NAFNet": ("NAFNet", {"img_channel": 3, "width": 8, "middle_blk_num": 1,
                          "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}),
    "Uformer": ("Uformer", {"img_size": 128, "embed_dim": 4, "depths": NINE, "num_heads": NINE}),
    "KBNet": ("KBNet_s", {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1],
                          "dec_blk_nums": [1, 1]}),
    "KBNet, large": ("KBNet_l", {"dim": 12, "num_blocks": FOUR, "num_refinement_blocks": 1,
                                 "heads": HEADS}),
    "GRL": ("GRL", {"embed_dim": 12, "depths": [2, 2], "num_heads_window": [1, 1],
                    "num_heads_stripe": [1, 1], "stripe_shift": True,
                    "anchor_window_down_factor": 4}),
    "Restormer": ("Restormer", {"dim": 8, "num_blocks": FOUR, "num_refinement_blocks": 1,
                                "heads": HEADS, "bias": False, "LayerNorm_type": "BiasFree"}),
    "MPRNet": ("MPRNet", {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4,
                          "num_cab": 2}),
    "MIRNet2": ("MIRNet2", {"n_feat": 16, "n_MRB": 1}),
    "M3SNet": ("M3SNet", {"width": 8, "enc_blk_nums": FOUR}),
}
# Names as of the published files; the noise level of each in units of [0, 1], None for blind.
FILES = {
    "SCUNet": ("scunet_color_25.pth", 25 / 255),
    "SwinIR": ("004_grayDN_DFWB_s128w8_SwinIR-M_noise50.pth", 50 / 255),
    "NAFNet": ("NAFNet-SIDD-width32.pth", None),
    "Uformer": ("Uformer_B_SIDD.pth", None),
    "KBNet": ("KBNet_s_sidd.pth", None),
    "KBNet, large": ("kbnet_l_color_sigma25.pth", 25 / 255),
    "GRL": ("dn_grl_base_c3_sigma15.pth", 15 / 255),
    "Restormer": ("gaussian_color_denoising_blind.pth", None),
    "MPRNet": ("MPRNet_SIDD.pth", None),
    "MIRNet2": ("real_denoising.pth", None),
    "M3SNet": ("M3SNet_SIDD.pth", None),
}


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    package, (cls, settings) = kind.partition(",")[0], SMALL[kind]
    extra = package in ("Restormer", "MPRNet", "MIRNet2", "M3SNet")
    if extra:
        pytest.importorskip("spandrel_extra_arches", reason=EXTRA_MISSING)
    of = "spandrel_extra_arches" if extra else "spandrel"
    net = getattr(import_module(f"{of}.architectures.{package}"), cls)(**settings)
    for value in net.parameters():  # the factors of some blocks begin with zeros
        value.data = value.data + 0.02 * torch.randn_like(value)
    return net


def test_every_denoiser_has_a_small_network_here() -> None:
    assert {kind.partition(",")[0] for kind in FILES} == set(DENOISERS)
    assert FILES.keys() == SMALL.keys()


@pytest.mark.parametrize("kind", FILES)
def test_images_and_restorations_are_those_of_spandrel(tmp_path: Path, kind: str) -> None:
    (name, level), net = FILES[kind], network(kind)
    path = tmp_path / name
    torch.save({"params": net.state_dict()}, path)
    registry = spandrel.ArchRegistry()
    registry.add(*spandrel.MAIN_REGISTRY)
    if "spandrel_extra_arches" in sys.modules:
        registry.add(*sys.modules["spandrel_extra_arches"].EXTRA_REGISTRY, ignore_duplicates=True)
    theirs = spandrel.ModelLoader(registry=registry).load_from_file(path)
    prior, channels = load_prior(path), theirs.input_channels
    assert prior.noise_level == level
    side = 128 if kind == "Uformer" else 48
    x = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.model.eval()(x)
        found = prior.denoise(x, level or 0.3)
    expected = expected if isinstance(expected, torch.Tensor) else expected[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - x).abs().max() > 1e-3  # the network does something
    clipped = theirs(x[:1])  # the call of the library clips
    torch.testing.assert_close(found[:1].clamp(0, 1), clipped, atol=1e-5, rtol=0)
    about = json.loads(succeed("priors", "info", path).stdout)
    assert about["format"] == "spandrel" and about["prior"] == theirs.architecture.name
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
