"""Folders to share a prior: they load again, and say what the manifest says."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from shell import refused, succeed

from genprior import load_prior
from genprior.api.export import export_diffusers, export_prior, push
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError, SettingError
from genprior.priors.checkpoint import save_checkpoint
from genprior.priors.ddpm import DDPM

DIFFUSERS_MISSING = 'diffusers is missing: pip install "genprior[diffusers]"'
ONNX_MISSING = 'onnx or onnxruntime is missing: pip install "genprior[onnx]"'
HUB_MISSING = 'huggingface_hub is missing: pip install "genprior[hub]"'


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A tiny training run, whose manifest tells about it."""
    torch.manual_seed(0)
    prior = DDPM(channels=1, widths=(8, 16), blocks=(1, 1))
    state = {key: 0.1 * torch.randn_like(value) for key, value in prior.state_dict().items()}
    about = {"data": ["digits, 3 images"], "measured": {"psnr": 21.5}, "crop": 8, "scale": False,
             "earlier_data": ["digits, 3 images", "letters, 2 images"], "teacher": "a larger one",
             "settings": {"lr": 0.001}, "licence": "for research only"}
    extra = {"optimizer": torch.zeros(3)}
    save_checkpoint(tmp_path / "run" / "step-00000007", "ddpm", prior.config, state, extra, about)
    return tmp_path / "run"


def test_the_folder_loads_and_has_a_card_and_samples(run: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    succeed("priors", "export", run, "-o", made, "--count", 5, "--steps", 2, "--summary", "Tiny.")
    ours, theirs = load_prior(run).state_dict(), load_prior(made).state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert not (made / "state.safetensors").exists()
    card = (made / "README.md").read_text()
    header = card.split("---")[1]
    assert "license: other" in header and "library_name: genprior" in header
    assert card.count("digits, 3 images") == 1
    for words in ("Tiny.", "letters, 2 images", "teacher: a larger one", "for research only",
                  "psnr 21.5", "lr 0.001",
                  json.loads((made / "manifest.json").read_text())["files"]
                  ["model.safetensors"]["sha256"]):
        assert words in card
    assert f"{sum(value.numel() for value in ours.values())} parameters" in card
    with Image.open(made / "samples.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (2 * 8 + 4, 3 * 8 + 8) and pixels[0, 0] != pixels[0, -1]
    code, line = refused("priors", "export", run, "-o", made)
    assert code == 2 and "exists: choose another -o" in line


def test_the_licence_may_be_an_identifier(run: Path, tmp_path: Path) -> None:
    export_prior(run, tmp_path / "made", licence="mit", count=1, steps=1)
    assert "license: mit\n" in (tmp_path / "made" / "README.md").read_text()


def test_the_denoiser_as_onnx(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason=ONNX_MISSING)
    runtime = pytest.importorskip("onnxruntime", reason=ONNX_MISSING)
    made, state = tmp_path / "made", torch.random.get_rng_state()
    export_prior(run, made, count=1, steps=1, onnx=True)
    assert torch.equal(state, torch.random.get_rng_state())
    session = runtime.InferenceSession(str(made / "denoiser.onnx"))
    prior = load_prior(run)
    for size, level in (((2, 2), 0.05), ((10, 34), 0.7)):
        x = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(3))
        sigma = np.array([level], dtype=np.float32)
        found = session.run(None, {"x": x.numpy(), "sigma": sigma})[0]
        torch.testing.assert_close(torch.as_tensor(found), prior.denoise(x, level), atol=1e-5,
                                   rtol=0)
    assert "denoiser.onnx" in (made / "README.md").read_text()


def test_no_onnx_without_a_denoiser_or_its_package(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SettingError, match=r'pip install "genprior\[onnx\]"'):
        export_prior(run, tmp_path / "made", count=1, steps=1, onnx=True)
    with pytest.raises(SettingError, match="ONNX is for networks that denoise, .* VAE is none"):
        export_prior("vae:digits", tmp_path / "made", count=1, onnx=True)
    assert not (tmp_path / "made").exists()


def test_the_upload(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason=HUB_MISSING)
    calls = []

    class Api:
        def create_repo(self, name: str, **settings: object) -> None:
            if name == "org/refused":
                raise hub.errors.HFValidationError("not allowed\nmore")
            calls.append((name, settings))

        def upload_folder(self, folder_path: str, repo_id: str) -> str:
            calls.append((sorted(p.name for p in Path(folder_path).iterdir()), repo_id))
            return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(hub, "HfApi", Api)
    made = tmp_path / "made"
    told = succeed("priors", "export", run, "-o", made, "--count", 1, "--steps", 1, "--push",
                   "org/name", "--private")
    assert told.stdout.splitlines()[-1] == "https://huggingface.co/org/name"
    files = ["README.md", "manifest.json", "model.safetensors", "samples.png"]
    assert calls == [("org/name", {"exist_ok": True, "private": True}), (files, "org/name")]
    with pytest.raises(CheckpointError, match=r"to org/refused \(not allowed\): log in with"):
        push(made, "org/refused")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r'pip install "genprior\[hub\]"'):
        push(made, "org/name")


def test_what_diffusers_cannot_hold_is_one_line(run: Path, tmp_path: Path) -> None:
    for source, kind in ((run, "ddpm"), ("vae:digits", "vae")):
        code, line = refused("priors", "export", source, "-o", tmp_path / "made", "--format",
                             "diffusers")
        assert code == EXIT_WEIGHTS and f"no class for the network of {kind}: --format" in line
        assert "leave --format out to write a checkpoint of genprior" in line
    torch.save({"0.weight": torch.ones(1, 1, 3, 3)}, tmp_path / "net.pt")
    code, line = refused("priors", "export", tmp_path / "net.pt", "-o", tmp_path / "made")
    assert code == EXIT_WEIGHTS and "is in the format of another package" in line
    code, line = refused("priors", "export", run, "-o", tmp_path / "made", "--format", "diffusers",
                         "--onnx")
    assert code == 2 and "--onnx is for --format genprior" in line
    assert not (tmp_path / "made").exists()


def test_a_folder_of_diffusers_with_a_card(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason=DIFFUSERS_MISSING)
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 16), down_block_types=("DownBlock2D",) * 2, num_class_embeds=3,
        up_block_types=("UpBlock2D",) * 2,
    ).eval()
    network.save_pretrained(tmp_path / "old", safe_serialization=False)  # one folder, pickled
    scheduler = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    scheduler.save_pretrained(tmp_path / "old")
    (tmp_path / "old" / "genprior.json").write_text('{"class_label": 2}')
    made = tmp_path / "made"
    succeed("priors", "export", tmp_path / "old", "-o", made, "--format", "diffusers", "--count",
            2, "--steps", 2, "--licence", "mit", "--summary", "Tiny.")
    assert not list(made.rglob("*.bin")) and list((made / "unet").glob("*.safetensors"))
    x, sigma = torch.rand(1, 1, 8, 8), 0.3
    found, expected = (load_prior(where).denoise(x, sigma) for where in (made, tmp_path / "old"))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    card = (made / "README.md").read_text()
    assert "license: mit\n" in card and "Tiny." in card and "unet/config.json" in card
    with Image.open(made / "samples.png") as image:
        assert image.size == (2 * 8 + 4, 8)
    assert str(tmp_path) not in (made / "unet" / "config.json").read_text()
    pipeline = diffusers.DDPMPipeline.from_pretrained(made)
    again = pipeline.unet.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())
    assert pipeline.scheduler.config.beta_schedule == "squaredcos_cap_v2"


def test_latent_diffusion_keeps_its_prompt(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason=DIFFUSERS_MISSING)
    torch.manual_seed(0)
    old, made = tmp_path / "old", tmp_path / "made"
    diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4,
    ).save_pretrained(old / "vae")
    diffusers.UNet2DConditionModel(
        sample_size=4, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        cross_attention_dim=6, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(old / "unet")
    diffusers.DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(old / "scheduler")
    save_file({name: torch.randn(5, 6) for name in ("prompt", "negative")},
              old / "prompt.safetensors")
    (old / "genprior.json").write_text('{"guidance": 2.0}')
    export_diffusers(old, made, count=1, steps=1)
    z = torch.randn(1, 4, 4, 4)
    found, expected = (load_prior(folder).denoise_latents(z, 0.7) for folder in (made, old))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
