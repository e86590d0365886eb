"""Diffusion models in pixel space in the folder format of diffusers: UNet2DModel and scheduler.

    unet/config.json, unet/*.safetensors or *.bin, scheduler/scheduler_config.json

or the same files in one folder. Models of DDPM become denoisers by `variance_preserving`. Score
models of the variance-exploding equation (ncsnpp) take images in [0, 1] and sigma itself:

    D(x, sigma) = x + sigma^2 score(x, sigma)

Velocity fields (FlowMatchEulerDiscreteScheduler, data at time 0) become denoisers by
`flow_matching`, networks of EDMEulerScheduler by `edm_preconditioning`.

References:
    Diffusers: State-of-the-art diffusion models, von Platen et al., 2022.
    Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2021.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
import torch
from torch import Tensor, nn

from genprior.core.errors import CheckpointError
from genprior.core.linalg import per_image
from genprior.priors.base import Denoiser
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
from genprior.priors.external.variance_preserving import Prediction, VariancePreserving
from genprior.priors.external.weight_files import (
    check_no_transformer,
    folder_of,
    read_settings,
)
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

NETWORK = "UNet2DModel"


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """Settings of a folder in `genprior.json`: the class that a conditional network draws."""

    class_label: int | None = None


class DiffusersUNet(nn.Module, Denoiser):
    """Diffusion prior from a UNet2DModel of diffusers.

    Arguments:
        network: The UNet2DModel.
        steps: Noise levels of its time steps, of the times of a flow, or of EDM; None for a
            score model (variance-exploding).
        class_label: Class of a conditional network.
    """

    def __init__(
        self, network: nn.Module,
        steps: VariancePreserving | FlowMatching | EDMPreconditioning | None,
        class_label: int | None = None,
    ) -> None:
        super().__init__()
        self.network, self.steps, self.class_label = network, steps, class_label
        config = network.config
        self.channels = config.in_channels
        self.stride = 2 ** (len(config.block_out_channels) - 1)
        side = config.sample_size
        self.size = (side, side) if isinstance(side, int) else side and tuple(side)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        padded, crop = pad_to_multiple(to_network(x, self.channels), self.stride)
        if self.steps is not None:
            x_hat = self.steps.denoise(self._run, padded, sigma)
        else:
            level = per_image(sigma, padded)
            x_hat = padded + level**2 * self._run(padded, level.flatten())
        return from_network(x_hat[crop], x.shape[1])

    def _run(self, u: Tensor, t: Tensor) -> Tensor:
        labels = None
        if self.class_label is not None:
            labels = torch.full((len(u),), self.class_label, device=u.device)
        if self.steps is not None and self.steps.whole_steps:
            t = t.long()
        kind = self.network.dtype
        return self.network(u.to(kind), t, class_labels=labels).sample[:, : self.channels].to(u)


def from_pipeline(pipeline: Any) -> DiffusersUNet:
    """Returns the prior of a `DDPMPipeline` or `DDIMPipeline` of diffusers.

    Arguments:
        pipeline: An object with a `unet` and a `scheduler`.

    Raises:
        ValueError: The scheduler is none of DDPM or predicts something else, or the images are
            neither grey nor RGB.
    """
    network, scheduler = pipeline.unet, pipeline.scheduler
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"a pipeline of diffusers must have a scheduler of DDPM, and this one has a "
            f"{type(scheduler).__name__}: save it with save_pretrained, and give the folder"
        )
    prediction = getattr(scheduler.config, "prediction_type", "epsilon")
    if prediction not in get_args(Prediction) or network.config.in_channels not in (1, 3):
        raise ValueError(
            f"a pipeline of diffusers must have 1 or 3 channels and predict one of "
            f"{', '.join(get_args(Prediction))}; this one has {network.config.in_channels} "
            f"channels and predicts {prediction}"
        )
    table = getattr(network.config, "time_embedding_type", "positional") == "learned"
    steps = VariancePreserving(scheduler.alphas_cumprod, prediction, whole_steps=table)
    prior = DiffusersUNet(network, steps)
    prior.training = network.training
    return prior


def load(
    path: Path, _: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[DiffusersUNet, dict[str, Any]]:
    """Loads a folder of diffusers; returns the prior and a description.

    Raises:
        CheckpointError: The folder holds another network or scheduler, is incomplete or damaged,
            or diffusers is not installed.
    """
    check_no_transformer(path, path)
    folder = folder_of(path) or path
    config = read_config(folder)
    if config.get("_class_name") != NETWORK:
        raise CheckpointError(
            f"{path}: its network is a {config.get('_class_name')}, and genprior loads "
            f"{NETWORK} (diffusion in pixel space): choose another model"
        )
    scheduler = read_scheduler(path, folder)
    network = load_network(folder, config, import_diffusers(folder).UNet2DModel)
    label = read_settings(path, Settings, told).class_label
    classes = config.get("num_class_embeds")
    if (label is None) != (classes is None) or not 0 <= (label or 0) < (classes or 1):
        raise CheckpointError(
            f"{path}: the network has {classes or 'no'} classes, and class_label is {label}: "
            f'write {{"class_label": N}} to {path / "genprior.json"} for a network with classes '
            f"only"
        )
    prior = DiffusersUNet(network, noise_levels(path, scheduler, config), label)
    return prior, _describe(path, prior, config, scheduler)


def _describe(
    path: Path, prior: DiffusersUNet, config: Mapping[str, Any], scheduler: Mapping[str, Any]
) -> dict[str, Any]:
    steps = prior.steps
    exploding = (scheduler.get("sigma_min", 0.01), scheduler.get("sigma_max", 1348.0))
    return {
        "format": "diffusers",
        "prior": f"{NETWORK} with {scheduler['_class_name']}",
        "parameters": sum(p.numel() for p in prior.parameters()),
        "channels": prior.channels,
        "trained_size": config.get("sample_size"),
        "image_range": [0, 1] if steps is None else [-1, 1],
        "prediction": "score" if steps is None else steps.prediction,
        "beta_schedule": scheduler.get("beta_schedule"),
        "noise_levels": exploding if steps is None else steps.range,
        **(steps.describe() if isinstance(steps, FlowMatching) else {}),
        "classes": config.get("num_class_embeds"),
        "class_label": prior.class_label,
        "licence": stated_licence(path),
    }
