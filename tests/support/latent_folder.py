"""A small folder of latent diffusion, written by diffusers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

diffusers = pytest.importorskip(
    "diffusers", reason='diffusers is missing: pip install "genprior[diffusers]"'
)
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
              "block_out_channels": (8, 16), "norm_num_groups": 4, **settings}
    if not conditional:
        return diffusers.UNet2DModel(
            **shared, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        ).eval()
    return diffusers.UNet2DConditionModel(
        **shared, cross_attention_dim=WIDTH, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
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
