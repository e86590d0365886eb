"""Folders of latent diffusion, written by diffusers and compared with its own steps."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shell import refused, save_photo, sidecar, succeed

from genprior import load_prior, sample
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError

DIFFUSERS_MISSING = 'diffusers is missing: pip install "genprior[diffusers]"'
TRANSFORMERS_MISSING = "transformers is missing: pip install transformers"
diffusers = pytest.importorskip("diffusers", reason=DIFFUSERS_MISSING)
WIDTH = 6


def autoencoder(**settings: object) -> "diffusers.AutoencoderKL":
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(**{
        "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2, "norm_num_groups": 4,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "scaling_factor": 0.7, **settings,
    }).eval()


def network(conditional: bool = True, **settings: object) -> torch.nn.Module:
    torch.manual_seed(1)
    shared = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1,
              "block_out_channels": (8, 16), "norm_num_groups": 4}
    if not conditional:
        return diffusers.UNet2DModel(
            **shared, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
            **settings,
        ).eval()
    return diffusers.UNet2DConditionModel(
        **shared, cross_attention_dim=WIDTH, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **settings,
    ).eval()


def prompts() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    return {name: torch.randn(5, WIDTH, generator=random) for name in ("prompt", "negative")}


def save(
    folder: Path, vae: torch.nn.Module, unet: torch.nn.Module, scheduler: object = None,
    **settings: object,
) -> Path:
    vae.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    scheduler = scheduler or diffusers.DDIMScheduler(beta_schedule="scaled_linear")
    scheduler.save_pretrained(folder / "scheduler")
    save_file(prompts(), folder / "prompt.safetensors")
    if settings:
        (folder / "genprior.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(("prediction", "guidance"), [
    ("epsilon", 1.0), ("epsilon", 2.5), ("v_prediction", 1.0),
])
def test_latents_and_images_are_those_of_the_library(
    tmp_path: Path, prediction: str, guidance: float
) -> None:
    vae, unet = autoencoder(shift_factor=0.1), network()
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", prediction_type=prediction, clip_sample=False,
        set_alpha_to_one=False,
    )
    prior = load_prior(save(tmp_path, vae, unet, scheduler, guidance=guidance))
    x = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        z = (vae.encode(2 * x - 1).latent_dist.mean - 0.1) * 0.7
        images = vae.decode(z / 0.7 + 0.1).sample / 2 + 0.5
    assert prior.latent_shape(x.shape) == z.shape == (2, 4, 8, 12)
    torch.testing.assert_close(prior.encode(x), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prior.decode(z, x.shape), images, atol=1e-5, rtol=1e-5)
    scheduler.set_timesteps(1000)
    for t in (0, 400, 999):
        a = scheduler.alphas_cumprod[t]
        with torch.no_grad():
            out = [unet(a.sqrt() * z, t, encoder_hidden_states=text.expand(2, -1, -1)).sample
                   for text in prompts().values()]
        out = out[1] + guidance * (out[0] - out[1])
        expected = scheduler.step(out, t, a.sqrt() * z).pred_original_sample
        s = ((1 - a) / a).sqrt().item()
        found = prior.denoise_latents(z, s)
        scale = expected.abs().max().item()  # many times 1 at t = 999
        torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=0)


def test_without_a_prompt_any_size_and_grey(tmp_path: Path) -> None:
    unet = network(conditional=False)
    prior = load_prior(save(tmp_path, autoencoder(), unet))
    for channels, size in ((3, (17, 9)), (1, (8, 16)), (3, (1, 1))):
        x = torch.rand(2, channels, *size)
        z = prior.encode(x)
        assert z.shape == prior.latent_shape(x.shape)
        assert prior.denoise_latents(z, torch.tensor([0.1, 5.0])).shape == z.shape
        assert prior.decode(z, x.shape).shape == x.shape
    assert sample(prior, count=2, steps=2).shape == (2, 3, 16, 16)  # 8 latents a side


@pytest.mark.parametrize("solver", ["psld", "latent-daps"])
def test_a_restoration_and_a_description_from_the_shell(tmp_path: Path, solver: str) -> None:
    folder = save(tmp_path / "ldm", autoencoder(), network())
    photo = save_photo(tmp_path / "a.png", size=(8, 12))
    succeed("inpaint", photo, "--prior", folder, "--mask", "box=4x4", "--degrade", "--solver",
            solver, "--steps", 2, "-q")
    assert str(folder) in json.dumps(sidecar(tmp_path / "a.genprior.png"))
    about = json.loads(succeed("priors", "info", folder).stdout)
    assert about["pixels_per_latent"] == 2 and about["scaling_factor"] == 0.7
    assert about["solvers"] == ["psld", "resample", "latent-daps"]
    assert {"vae/config.json", "unet/config.json", "prompt.safetensors"} <= set(about["files"])


def defect(name: str, folder: Path) -> None:
    if name == "prompt":
        (folder / "prompt.safetensors").unlink()
    elif name == "width":
        save_file({"prompt": torch.zeros(5, WIDTH + 1)}, folder / "prompt.safetensors")
    elif name == "channels":
        autoencoder(latent_channels=3).save_pretrained(folder / "vae")
    elif name == "damaged":
        (folder / "prompt.safetensors").write_bytes(b"x")
    else:
        config = folder / name / "config.json"
        settings = json.loads(config.read_text())
        kind = {"vae": "VQModel", "unet": "Transformer2DModel"}[name]
        config.write_text(json.dumps({**settings, "_class_name": kind}))


@pytest.mark.parametrize(("name", "message"), [
    ("prompt", "its network takes a prompt, and there is no "),
    ("width", "has shape (5, 7), and the network takes (tokens, 6)"),
    ("channels", "latents have 3 channels, and the network takes 4"),
    ("damaged", "prompt.safetensors: cannot be read"),
    ("vae", "holds a VQModel and a UNet2DConditionModel"),
    ("unet", "holds a AutoencoderKL and a Transformer2DModel"),
])
def test_defects_are_one_line(tmp_path: Path, name: str, message: str) -> None:
    save(tmp_path, autoencoder(), network())
    defect(name, tmp_path)
    code, line = refused("priors", "info", tmp_path)
    assert code == EXIT_WEIGHTS and message in line


def test_a_prompt_needs_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    save(tmp_path, autoencoder(), network(), prompt="a cat")
    with pytest.raises(CheckpointError, match="pip install transformers; or write prompt.safe"):
        load_prior(tmp_path)


def test_a_prompt_is_encoded_by_the_text_encoder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason=TRANSFORMERS_MISSING)
    torch.manual_seed(0)
    save(tmp_path, autoencoder(), network(), prompt="a cat", guidance=3.0)
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "c", "a", "t</w>", "ca", "cat</w>"]
    (tmp_path / "vocab.json").write_text(json.dumps({w: k for k, w in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    tokenizer = transformers.CLIPTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=7
    )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=7, bos_token_id=0, eos_token_id=1,
    )).eval()
    encoder.save_pretrained(tmp_path / "text_encoder")
    prior = load_prior(tmp_path)
    for text, found in (("a cat", prior.prompt), ("", prior.negative)):
        tokens = tokenizer(text, padding="max_length", max_length=7, return_tensors="pt")
        with torch.no_grad():
            expected = encoder(tokens.input_ids).last_hidden_state[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
