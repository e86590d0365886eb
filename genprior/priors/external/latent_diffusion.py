"""Latent diffusion in the folder format of diffusers: AutoencoderKL, UNet and scheduler.

    vae/, unet/ (UNet2DModel or UNet2DConditionModel), scheduler/

Latents are z = scaling_factor (E(2 x - 1) - shift_factor), with the mean of the encoder. A network
with cross-attention is given the embedding of a prompt, by default of the empty one:

    from prompt.safetensors in the folder, tensors "prompt" and "negative" (tokens, width), or
    computed by the text encoder in the folder, with the package transformers

Weights of a LoRA file (DreamBooth) are added to those of the network and of the text encoder. A
ControlNet adds its residuals to the network, see `genprior.priors.external.controlnet`.

With guidance w, the prediction is F_negative + w (F_prompt - F_negative).

References:
    High-Resolution Image Synthesis with Latent Diffusion Models, Rombach et al., 2022.
    Classifier-Free Diffusion Guidance, Ho and Salimans, 2022.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genprior.core.errors import CheckpointError
from genprior.priors.base import LatentDenoiser
from genprior.priors.external.controlnet import Control, load_control
from genprior.priors.external.diffusers_folder import (
    import_diffusers,
    load_network,
    noise_levels,
    read_config,
    read_scheduler,
    stated_licence,
)
from genprior.priors.external.edm_preconditioning import EDMPreconditioning
from genprior.priors.external.flow_matching import FlowMatching
from genprior.priors.external.lora import LoRA, read_lora
from genprior.priors.external.variance_preserving import VariancePreserving
from genprior.priors.external.weight_files import check_no_transformer, read_settings
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

NETWORKS = ("UNet2DModel", "UNet2DConditionModel")
PROMPT = "prompt.safetensors"
MAX_TOKENS = 1000


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """Settings of a folder in `genprior.json`.

    `prompt` and `negative_prompt` are texts; `guidance` is the factor w >= 0, 1 for none. `lora`
    is a LoRA file, relative to the folder, and `lora_scale` the factor of its changes. `control`
    is the folder of a ControlNet and `control_image` its image, both relative to the folder;
    `control_scale` is the factor of its residuals.
    """

    prompt: str = ""
    negative_prompt: str = ""
    guidance: float = 1.0
    lora: str | None = None
    lora_scale: float = 1.0
    control: str | None = None
    control_image: str | None = None
    control_scale: float = 1.0


class LatentDiffusion(nn.Module, LatentDenoiser):
    """Latent diffusion prior from networks of diffusers.

    Arguments:
        autoencoder: An AutoencoderKL.
        network: A UNet2DModel or UNet2DConditionModel.
        steps: Noise levels of its time steps, of the times of a flow, or of EDM.
        prompt: Embedding of the prompt, shape (tokens, width); None for a network without.
        negative: That of the negative prompt, for guidance.
        guidance: Factor w; 1 uses the prompt alone.
        control: A ControlNet with its image; None for none.
    """

    def __init__(
        self, autoencoder: nn.Module, network: nn.Module,
        steps: VariancePreserving | FlowMatching | EDMPreconditioning,
        prompt: Tensor | None = None, negative: Tensor | None = None, guidance: float = 1.0,
        control: Control | None = None,
    ) -> None:
        super().__init__()
        self.control = control
        self.autoencoder, self.network, self.steps = autoencoder, network, steps
        self.guidance = guidance
        self.register_buffer("prompt", prompt)
        self.register_buffer("negative", negative)
        config = autoencoder.config
        self.channels, self.depth = config.in_channels, config.latent_channels
        self.factor = 2 ** (len(config.block_out_channels) - 1)
        self.multiple = self.factor * 2 ** (len(network.config.block_out_channels) - 1)
        self.scale = config.scaling_factor
        self.shift = getattr(config, "shift_factor", None) or 0.0
        side = network.config.sample_size
        self.sample_size = (side * self.factor,) * 2 if isinstance(side, int) else None
        if control is not None:
            self.sample_size = tuple(control.image.shape[2:])

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        rows, columns = (-(-side // self.multiple) * self.multiple // self.factor
                         for side in image_shape[2:])
        return image_shape[0], self.depth, rows, columns

    def encode(self, x: Tensor) -> Tensor:
        padded, _ = pad_to_multiple(to_network(x, self.channels), self.multiple)
        mean = self.autoencoder.encode(2 * padded - 1).latent_dist.mean
        return (mean - self.shift) * self.scale

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        u = self.autoencoder.decode(z / self.scale + self.shift).sample
        crop = u[..., : image_shape[2], : image_shape[3]]
        return from_network((crop + 1) / 2, image_shape[1])

    def denoise_latents(self, z: Tensor, s: float | Tensor) -> Tensor:
        # the steps take images x in [0, 1], u = 2 x - 1, and their noise level s / 2
        return 2 * self.steps.denoise(self._run, (z + 1) / 2, s / 2) - 1

    def _run(self, z: Tensor, t: Tensor) -> Tensor:
        if self.prompt is None:
            return self.network(z, t).sample[:, : self.depth]
        if self.guidance == 1 or self.negative is None:
            return self._conditional(z, t, self.prompt)
        both = [self._conditional(z, t, text) for text in (self.negative, self.prompt)]
        return both[0] + self.guidance * (both[1] - both[0])

    def _conditional(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        states = text.to(z).expand(len(z), -1, -1)
        added = {} if self.control is None else self.control(
            z, t, states, self.multiple, self.factor
        )
        return self.network(z, t, encoder_hidden_states=states, **added).sample[:, : self.depth]


def load(
    path: Path, _: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[LatentDiffusion, dict[str, Any]]:
    """Loads a folder of diffusers with an autoencoder; returns the prior and a description.

    Raises:
        CheckpointError: A part is missing, damaged or of another kind, the prompt has no
            embedding, a setting does not fit, or diffusers is not installed.
    """
    # what a user types is relative to the current folder
    typed = [name for name in ("lora", "control", "control_image") if name in told]
    told = {**told, **{name: str(Path(told[name]).absolute()) for name in typed}}
    settings = _checked(path, read_settings(path, Settings, told))
    check_no_transformer(path, path)
    first, second = read_config(path / "vae"), read_config(path / "unet")
    kind = second.get("_class_name")
    if first.get("_class_name") != "AutoencoderKL" or kind not in NETWORKS:
        raise CheckpointError(
            f"{path}: holds a {first.get('_class_name')} and a {kind}, and genprior loads an "
            f"AutoencoderKL with a {' or '.join(NETWORKS)}: choose another model"
        )
    scheduler = read_scheduler(path, path / "unet")
    diffusers = import_diffusers(path)
    autoencoder = load_network(path / "vae", first, diffusers.AutoencoderKL)
    network = load_network(path / "unet", second, getattr(diffusers, kind))
    config = autoencoder.config
    if network.config.in_channels != config.latent_channels:
        raise CheckpointError(
            f"{path}: latents have {config.latent_channels} channels, and the network takes "
            f"{network.config.in_channels}: it is for another task, such as inpainting"
        )
    if second.get("addition_embed_type") or second.get("class_embed_type"):
        raise CheckpointError(
            f"{path}: its network needs more than a prompt (such as SDXL): choose another model"
        )
    steps = noise_levels(path, scheduler, second)
    if steps is None:
        raise CheckpointError(f"{path}: a score model of latents is not supported")
    prompt = negative = lora = control = None
    if kind == "UNet2DConditionModel":
        if settings.lora is not None:
            lora = read_lora(path / settings.lora, settings.lora_scale)
            lora.add_to_network(network)
        width = network.config.cross_attention_dim
        prompt, negative = _embeddings(path, settings, width, lora)
        if settings.control is not None and settings.control_image is not None:
            control = load_control(path / settings.control, path / settings.control_image,
                                   settings.control_scale, network.config)
    elif settings != Settings():
        raise CheckpointError(
            f"{path}: its {kind} takes no prompt: leave out prompt, negative_prompt, guidance, "
            f"lora and control"
        )
    prior = LatentDiffusion(
        autoencoder, network, steps, prompt, negative, settings.guidance, control
    )
    about = {
        "format": "diffusers",
        "prior": f"latent diffusion: AutoencoderKL and {kind}",
        "parameters": sum(p.numel() for p in prior.parameters()),
        "channels": prior.channels,
        "latent_channels": prior.depth,
        "pixels_per_latent": prior.factor,
        "trained_size": prior.sample_size and prior.sample_size[0],
        "image_range": [-1, 1],
        "scaling_factor": prior.scale,
        "shift_factor": prior.shift,
        "prediction": steps.prediction,
        "beta_schedule": scheduler.get("beta_schedule"),
        "noise_levels": "all" if isinstance(steps, FlowMatching) else
                        [2 * level for level in steps.range],
        "prompt": None if prompt is None else settings.prompt,
        **({} if prompt is None else {"negative_prompt": settings.negative_prompt}),
        "guidance": settings.guidance,
        **({} if lora is None else lora.describe()),
        **({} if control is None else control.describe()),
        "licence": stated_licence(path),
    }
    return prior, about


def _checked(path: Path, settings: Settings) -> Settings:
    """Returns the settings; raises CheckpointError if one is out of range or has no effect."""
    for name in ("guidance", "lora_scale", "control_scale"):
        if not 0 <= getattr(settings, name) < float("inf"):
            raise CheckpointError(f"{path}: {name} must be >= 0, got {getattr(settings, name)}")
    if settings.negative_prompt and settings.guidance == 1:
        raise CheckpointError(
            f"{path}: a negative prompt has no effect without guidance: set guidance, such as 3"
        )
    if settings.lora is None and settings.lora_scale != 1:
        raise CheckpointError(f"{path}: lora_scale is the factor of lora: give the LoRA file too")
    if (settings.control is None) != (settings.control_image is None):
        raise CheckpointError(
            f"{path}: a ControlNet needs both: control, its folder, and control_image, its image"
        )
    if settings.control is None and settings.control_scale != 1:
        raise CheckpointError(f"{path}: control_scale is the factor of control: give it too")
    return settings


def _embeddings(
    path: Path, settings: Settings, width: int, lora: LoRA | None
) -> tuple[Tensor, Tensor | None]:
    """Returns the embeddings of the prompt and of the negative prompt, (tokens, width).

    Raises:
        CheckpointError: There are none, or they have another shape.
    """
    file = path / PROMPT
    stored = not (settings.prompt or settings.negative_prompt or (lora and lora.has_text))
    if file.is_file() and stored:
        try:
            stored = load_file(file)
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: cannot be read ({error})") from error
        prompt, negative = stored.get("prompt"), stored.get("negative")
    else:
        prompt, negative = _encode(path, (settings.prompt, settings.negative_prompt), lora)
    for text in filter(lambda text: text is not None, (prompt, negative)):
        if text.ndim != 2 or text.shape[1] != width or len(text) > MAX_TOKENS:
            raise CheckpointError(
                f"{path}: the embedding of a prompt has shape {tuple(text.shape)}, and the "
                f"network takes (tokens, {width})"
            )
    if prompt is None:
        raise CheckpointError(f"{file}: holds no tensor named prompt")
    if negative is None and settings.guidance != 1:
        raise CheckpointError(f"{file}: holds no tensor named negative, which guidance needs")
    return prompt, negative


def _encode(path: Path, texts: tuple[str, str], lora: LoRA | None) -> tuple[Tensor, Tensor]:
    """Returns the embeddings of two texts by the text encoder of a folder, (tokens, width)."""
    missing = [name for name in ("tokenizer", "text_encoder") if not (path / name).is_dir()]
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
        from transformers.utils import logging
    except ImportError:
        missing = ['the package transformers: pip install "genprior[prompt]"']
    if missing:
        raise CheckpointError(
            f"{path}: its network takes a prompt, and there is no {' and no '.join(missing)}; or "
            f'write {PROMPT} with a tensor "prompt", the embedding of the empty prompt'
        )
    try:
        tokenizer = CLIPTokenizer.from_pretrained(path / "tokenizer", local_files_only=True)
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            encoder = CLIPTextModel.from_pretrained(
                path / "text_encoder", local_files_only=True, use_safetensors=True
            ).eval()
        finally:
            if shown:
                logging.enable_progress_bar()
        if lora is not None:
            lora.add_to_text_encoder(encoder)
        tokens = tokenizer(
            list(texts), padding="max_length", truncation=True,
            max_length=tokenizer.model_max_length, return_tensors="pt",
        )
        with torch.no_grad():
            prompt, negative = encoder(tokens.input_ids).last_hidden_state.float()
        return prompt, negative
    except (OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: its text encoder cannot be used ({reason:.160})"
        ) from error
