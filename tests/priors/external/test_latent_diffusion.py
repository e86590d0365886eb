"""Folders of latent diffusion, written by diffusers and compared with its own steps."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from latent_folder import WIDTH, autoencoder, diffusers, network, prompts, save
from PIL import Image
from safetensors.torch import save_file
from shell import refused, save_photo, sidecar, succeed
from text_encoder import embedding, save_text_encoder

from genprior import load_prior, sample
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError

TRANSFORMERS_MISSING = 'transformers is missing: pip install "genprior[prompt]"'


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
    z = (1024 * z).round() / 1024  # changes of units are exact: the network amplifies rounding
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
    with pytest.raises(CheckpointError, match=r'install "genprior\[prompt\]"; or write prompt'):
        load_prior(tmp_path)


@pytest.mark.parametrize(("settings", "message"), [
    ({"negative_prompt": "blur"}, "a negative prompt has no effect without guidance"),
    ({"guidance": -1.0}, "guidance must be >= 0, got -1.0"),
    ({"guidance": "high"}, "Expected `float`, got `str` - at `$.guidance`; this one may set "),
    ({"lora_scale": 2.0}, "lora_scale is the factor of lora: give the LoRA file too"),
    ({"prompts": "a cat"}, "unknown field `prompts`; this one may set prompt, negative_prompt"),
])
def test_wrong_settings_are_one_line(tmp_path: Path, settings: dict, message: str) -> None:
    save(tmp_path, autoencoder(), network())
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_prior(tmp_path, **settings)


def test_other_priors_take_no_prompt(tmp_path: Path, weights: Path) -> None:
    photo = save_photo(tmp_path / "a.png", size=(8, 12))
    save(tmp_path / "ldm", autoencoder(), network(conditional=False))
    for prior, message in (
        (weights, "has no prompt: these are for priors of other packages"),
        (tmp_path / "ldm", "its UNet2DModel takes no prompt: leave out prompt"),
        ("texture", "prior 'texture' has no prompt"),
    ):
        code, line = refused("denoise", photo, "--noise", 0.1, "--prior", prior, "--prompt", "cat")
        assert code == EXIT_WEIGHTS and message in line


@pytest.mark.parametrize("parts", [("transformer", "vae"), ("vae",), ()])
def test_a_transformer_is_refused(tmp_path: Path, parts: tuple[str, ...]) -> None:
    save(tmp_path, autoencoder(), network())
    (tmp_path / "unet").rename(tmp_path / "transformer")
    for name in {"transformer", "vae"} - set(parts):  # not downloaded
        shutil.rmtree(tmp_path / name)
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    code, line = refused("priors", "info", tmp_path)
    assert code == EXIT_WEIGHTS
    assert "its network of a FluxPipeline is a transformer, as of SD3 and FLUX" in line


def test_guidance_needs_a_negative_embedding(tmp_path: Path) -> None:
    save(tmp_path, autoencoder(), network(), guidance=2.0)
    save_file({"prompt": prompts()["prompt"]}, tmp_path / "prompt.safetensors")
    with pytest.raises(CheckpointError, match="no tensor named negative, which guidance needs"):
        load_prior(tmp_path)


def test_a_prompt_is_encoded_by_the_text_encoder(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=TRANSFORMERS_MISSING)
    folder = save(tmp_path / "ldm", autoencoder(), network())
    tokenizer, encoder = save_text_encoder(folder, WIDTH)
    prior = load_prior(folder, prompt="a cat", guidance=3.0)
    for text, found in (("a cat", prior.prompt), ("", prior.negative)):
        torch.testing.assert_close(found, embedding(tokenizer, encoder, text), atol=1e-5, rtol=0)
    other = load_prior(folder, prompt="a cat", negative_prompt="cat", guidance=3.0)
    expected = embedding(tokenizer, encoder, "cat")
    torch.testing.assert_close(other.negative, expected, atol=1e-5, rtol=0)


def test_a_prompt_from_the_shell_gives_the_images_of_the_library(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=TRANSFORMERS_MISSING)
    vae, unet = autoencoder(), network()
    folder = save(tmp_path / "ldm", vae, unet)
    tokenizer, encoder = save_text_encoder(folder, WIDTH)
    photo = save_photo(tmp_path / "a.png", size=(8, 12))
    words = ["--prompt", "a cat", "--negative-prompt", "cat", "--guidance", 3]
    succeed("inpaint", photo, "--prior", folder, "--mask", "box=4x4", "--degrade", "--solver",
            "psld", "--steps", 2, "-q", *words)
    told = {"prompt": "a cat", "negative_prompt": "cat", "guidance": 3.0}
    assert sidecar(tmp_path / "a.genprior.png")["prior_settings"] == told
    prior = load_prior(folder, **told)
    z, scheduler = torch.randn(1, 4, 4, 6), diffusers.DDIMScheduler(beta_schedule="scaled_linear")
    a = scheduler.alphas_cumprod[400]
    with torch.no_grad():
        out = [unet(a.sqrt() * z, 400, encoder_hidden_states=embedding(tokenizer, encoder, text)
                    [None]).sample for text in ("cat", "a cat")]
    expected = z - ((1 - a) / a).sqrt() * (out[0] + 3 * (out[1] - out[0]))
    found = prior.denoise_latents(z, ((1 - a) / a).sqrt().item())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    succeed("sample", "--prior", folder, "--steps", 2, "-o", tmp_path / "drawn.png", *words)
    expected = sample(prior, steps=2)
    with Image.open(tmp_path / "drawn.png") as image:
        pixels = torch.as_tensor(np.asarray(image) / 255).permute(2, 0, 1)
    torch.testing.assert_close(pixels, expected[0].clamp(0, 1).double(), atol=0.51 / 255, rtol=0)


def test_an_evaluation_takes_a_prompt(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=TRANSFORMERS_MISSING)
    folder = save(tmp_path / "ldm", autoencoder(), network())
    save_text_encoder(folder, WIDTH)
    shutil.copytree(folder, tmp_path / "told")
    settings = {"prompt": "a cat", "negative_prompt": "cat", "guidance": 3.0}
    (tmp_path / "told" / "genprior.json").write_text(json.dumps(settings))
    (tmp_path / "photos").mkdir()
    save_photo(tmp_path / "photos" / "a.png", size=(8, 12))
    words = ("evaluate", tmp_path / "photos", "--task", "inpaint:box=4x4,noise=0.1", "--solver",
             "psld", "--steps", 2, "-q")
    options = ("--prompt", "a cat", "--negative-prompt", "cat", "--guidance", 3)

    def scores(name: str, prior: Path, *told: object) -> list[float]:
        succeed(*words, "--prior", prior, "-o", tmp_path / name, *told)
        rows = json.loads((tmp_path / name / "report.json").read_text())["rows"]
        return [row["scores"]["psnr"]["value"] for row in rows]

    plain = scores("plain", folder)
    assert scores("typed", folder, *options) == scores("stored", tmp_path / "told") != plain
    for prior, out, message in (
        ("texture", "none", "--prompt needs --prior with a folder of latent diffusion"),
        (folder, "typed", "holds results with prior settings = "),
    ):
        _, line = refused(*words, "--prior", prior, "-o", tmp_path / out, "--prompt", "a dog")
        assert message in line
