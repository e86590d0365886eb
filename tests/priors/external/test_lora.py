"""LoRA files, written by diffusers and peft, against the pipeline of diffusers and formulas."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shell import refused, save_photo, sidecar, succeed
from text_encoder import embedding, save_text_encoder
from torch import Tensor

from genprior import load_prior
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError

DIFFUSERS_MISSING = 'diffusers is missing: pip install "genprior[diffusers]"'
PEFT_MISSING = 'peft is missing: pip install "genprior[lora]"'
TRANSFORMERS_MISSING = 'transformers is missing: pip install "genprior[prompt]"'
diffusers = pytest.importorskip("diffusers", reason=DIFFUSERS_MISSING)
WIDTH, RANK = 6, 2
LAYERS = ("to_q", "to_v")


def unet(width: int = WIDTH) -> torch.nn.Module:
    torch.manual_seed(1)
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, cross_attention_dim=width,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()


def save(folder: Path) -> Path:
    torch.manual_seed(0)
    diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).save_pretrained(folder / "vae")
    unet().save_pretrained(folder / "unet")
    diffusers.DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    random = torch.Generator().manual_seed(2)
    save_file({name: torch.randn(5, WIDTH, generator=random) for name in ("prompt", "negative")},
              folder / "prompt.safetensors")
    return folder


def changes(network: torch.nn.Module, seed: int = 3, names: tuple[str, ...] = LAYERS) -> dict:
    """Returns A and B of the layers whose names end so, by layer."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(RANK, layer.in_features, generator=random),
               torch.randn(layer.out_features, RANK, generator=random))
        for name, layer in network.named_modules() if name.endswith(names)
    }


def save_lora(folder: Path, kind: str, found: dict[str, tuple[Tensor, Tensor]]) -> Path:
    """Writes a LoRA file in the layout of diffusers, or of the program of kohya with alpha 1."""
    if kind == "kohya":
        tensors = {}
        for name, (a, b) in found.items():
            layer = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {f"{layer}.lora_down.weight": a, f"{layer}.lora_up.weight": b,
                        f"{layer}.alpha": torch.tensor(1.0)}
        save_file(tensors, folder / "lora.safetensors")
    else:
        layers = {f"{name}.lora_{which}.weight": value for name, pair in found.items()
                  for which, value in zip("AB", pair, strict=True)}
        diffusers.StableDiffusionPipeline.save_lora_weights(
            folder, unet_lora_layers=layers, weight_name="lora.safetensors"
        )
    return folder / "lora.safetensors"


@pytest.mark.parametrize(("kind", "alpha"), [("diffusers", RANK), ("kohya", 1.0)])
def test_the_network_has_the_sum_of_the_weights(
    tmp_path: Path, kind: str, alpha: float
) -> None:
    pytest.importorskip("peft", reason=PEFT_MISSING)
    folder, network = save(tmp_path / "ldm"), unet()
    found = changes(network)
    file = save_lora(tmp_path, kind, found)
    prior = load_prior(folder, lora=file, lora_scale=0.7)
    layers = dict(network.named_modules())
    with torch.no_grad():
        for name, (a, b) in found.items():
            layers[name].weight += 0.7 * alpha / RANK * b @ a
    z, text = torch.randn(2, 4, 8, 12), load_file(folder / "prompt.safetensors")["prompt"]
    a = diffusers.DDIMScheduler(beta_schedule="scaled_linear").alphas_cumprod[400]
    s = ((1 - a) / a).sqrt()
    with torch.no_grad():
        out = network(a.sqrt() * z, 400, encoder_hidden_states=text.expand(2, -1, -1)).sample
    found = prior.denoise_latents(z, s.item())
    torch.testing.assert_close(found, z - s * out, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(load_prior(folder).denoise_latents(z, s.item()), z - s * out)
    assert not any("lora" in key for key in prior.state_dict())


def test_a_file_for_network_and_text_encoder_gives_what_the_pipeline_gives(
    tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason=PEFT_MISSING)
    pytest.importorskip("transformers", reason=TRANSFORMERS_MISSING)
    folder, network = save(tmp_path / "ldm"), unet()
    tokenizer, encoder = save_text_encoder(folder, WIDTH)
    both = {"unet": changes(network), "text_encoder": changes(encoder, 4, ("q_proj", "v_proj"))}
    layers = {part: {f"{name}.lora_{which}.weight": value for name, pair in found.items()
                     for which, value in zip("AB", pair, strict=True)}
              for part, found in both.items()}
    assert all(layers.values())
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=layers["unet"], weight_name="lora.safetensors",
        text_encoder_lora_layers=layers["text_encoder"],
    )
    file = tmp_path / "lora.safetensors"
    prior = load_prior(folder, lora=str(file), prompt="a cat", guidance=2.0)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(folder / "vae"), text_encoder=encoder,
        tokenizer=tokenizer, unet=network,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    pipeline.load_lora_weights(file)
    prompt, negative = pipeline.encode_prompt("a cat", "cpu", 1, True)
    for found, expected in ((prior.prompt, prompt[0]), (prior.negative, negative[0])):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    plain = save_text_encoder(folder, WIDTH)
    assert not torch.allclose(prior.prompt, embedding(*plain, "a cat"))
    z = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        expected = network(z, 400, encoder_hidden_states=prompt).sample
        found = prior.network(z, 400, encoder_hidden_states=prompt).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_restoration_and_a_description_from_the_shell(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason=PEFT_MISSING)
    folder = save(tmp_path / "ldm")
    file, photo = save_lora(tmp_path, "diffusers", changes(unet())), tmp_path / "a.png"
    save_photo(photo, size=(8, 12))
    succeed("inpaint", photo, "--prior", folder, "--mask", "box=4x4", "--degrade", "--solver",
            "psld", "--steps", 2, "-q", "--lora", file, "--lora-scale", 0.5)
    told = {"lora": str(file), "lora_scale": 0.5}
    assert sidecar(tmp_path / "a.genprior.png")["prior_settings"] == told
    file.rename(folder / "style.safetensors")
    (folder / "genprior.json").write_text('{"lora": "style.safetensors"}')
    about = json.loads(succeed("priors", "info", folder).stdout)
    assert about["lora"]["file"] == "style.safetensors" and about["lora"]["changes"] == ["unet"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason=PEFT_MISSING)
    folder, photo = save(tmp_path / "ldm"), save_photo(tmp_path / "a.png")
    some = changes(unet())
    partly = {f"mid_block.other.{k}": pair for k, pair in enumerate(changes(unet()).values())}
    for found, message in (
        (changes(unet(width=8)), "does not fit the prior"),
        (partly, "does not fit the prior"),
        (some | dict(list(partly.items())[:1]), f"({len(some)} of the {len(some) + 1} layers in"),
    ):
        file = save_lora(tmp_path, "diffusers", found)
        code, line = refused("denoise", photo, "--noise", 0.1, "--prior", folder, "--lora", file)
        assert code == EXIT_WEIGHTS and message in line
    save_file({"a.weight": torch.ones(2)}, file)
    with pytest.raises(CheckpointError, match="lora.safetensors: is no LoRA file"):
        load_prior(folder, lora=file)
    with pytest.raises(CheckpointError, match="none.pt: no such file"):
        load_prior(folder, lora=tmp_path / "none.pt")


def test_without_peft_a_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    file = save_lora(tmp_path, "kohya", changes(unet()))
    with pytest.raises(CheckpointError, match=r'pip install "genprior\[lora\]"'):
        load_prior(save(tmp_path / "ldm"), lora=file)
