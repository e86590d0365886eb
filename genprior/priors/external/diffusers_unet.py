"""Diffusion models in pixel space in the folder format of diffusers: UNet2DModel and scheduler.

    unet/config.json, unet/*.safetensors or *.bin, scheduler/scheduler_config.json

or the same files in one folder. Models of DDPM become denoisers by `variance_preserving`. Score
models of the variance-exploding equation (ncsnpp) take images in [0, 1] and sigma itself:

    D(x, sigma) = x + sigma^2 score(x, sigma)

Velocity fields (FlowMatchEulerDiscreteScheduler, data at time 0) become denoisers by
`flow_matching`.

References:
    Diffusers: State-of-the-art diffusion models, von Platen et al., 2022.
    Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2021.
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
import safetensors
import torch
from torch import Tensor, nn

from genprior.core.errors import CheckpointError
from genprior.core.linalg import per_image
from genprior.core.records import read_json
from genprior.priors.arguments import at_most
from genprior.priors.base import Denoiser
from genprior.priors.external.flow_matching import FlowMatching
from genprior.priors.external.variance_preserving import Prediction, VariancePreserving
from genprior.priors.external.weight_files import (
    CONFIG,
    PIPELINE,
    UNREADABLE,
    folder_of,
    open_weights,
    read_settings,
)
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

NETWORK = "UNet2DModel"
SCHEDULER, WEIGHTS = "scheduler_config.json", "diffusion_pytorch_model"
# Attention layers in files of diffusers before 0.12, which it renames.
NEW_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.",
             ".proj_attn.": ".to_out.0."}
OLD_NAMES = re.compile("|".join(map(re.escape, NEW_NAMES)))
EXPLODING = "ScoreSdeVeScheduler"
FLOW = re.compile(r"FlowMatch(Euler|Heun)DiscreteScheduler")
# Schedulers whose settings describe the training of DDPM; they differ in their samplers only.
DISCRETE = re.compile(
    r"(DDPM|DDIM|DDIMInverse|PNDM|LMSDiscrete|EulerDiscrete|EulerAncestralDiscrete|Heun\w*|"
    r"DPMSolver\w*|UniPC\w*|DEIS\w*|KDPM2\w*|RePaint)Scheduler"
)


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """Settings of a folder in `genprior.json`: the class that a conditional network draws."""

    class_label: int | None = None


class DiffusersUNet(nn.Module, Denoiser):
    """Diffusion prior from a UNet2DModel of diffusers.

    Arguments:
        network: The UNet2DModel.
        steps: Noise levels of its time steps, or of the times of a flow; None for a score model
            (variance-exploding).
        class_label: Class of a conditional network.
    """

    def __init__(
        self, network: nn.Module, steps: VariancePreserving | FlowMatching | None,
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
        ValueError: The scheduler predicts something else, or the images are neither grey nor
            RGB.
    """
    network, scheduler = pipeline.unet, pipeline.scheduler
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


def load(path: Path, _: Mapping[str, Tensor]) -> tuple[DiffusersUNet, dict[str, Any]]:
    """Loads a folder of diffusers; returns the prior and a description.

    Raises:
        CheckpointError: The folder holds another network or scheduler, is incomplete or damaged,
            or diffusers is not installed.
    """
    folder = folder_of(path) or path
    config = _config(folder)
    if config.get("_class_name") != NETWORK:
        raise CheckpointError(
            f"{path}: its network is a {config.get('_class_name')}, and genprior loads "
            f"{NETWORK} (diffusion in pixel space): choose another model"
        )
    scheduler = _scheduler(path, folder)
    network = _network(folder, config)
    label = read_settings(path, Settings).class_label
    classes = config.get("num_class_embeds")
    if (label is None) != (classes is None) or not 0 <= (label or 0) < (classes or 1):
        raise CheckpointError(
            f"{path}: the network has {classes or 'no'} classes, and class_label is {label}: "
            f'write {{"class_label": N}} to {path / "genprior.json"} for a network with classes '
            f"only"
        )
    prior = DiffusersUNet(network, _steps(path, scheduler, config), label)
    return prior, _describe(path, prior, config, scheduler)


def _config(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / CONFIG, dict[str, Any])
    except (OSError, ValueError) as error:
        kind = ""
        if (folder / PIPELINE).exists():
            index = read_json(folder / PIPELINE, dict[str, Any])
            kind = f" (a {index.get('_class_name')})"
        raise CheckpointError(
            f"{folder}{kind}: {CONFIG} of a {NETWORK} cannot be read ({error})"
        ) from error


def _scheduler(path: Path, folder: Path) -> dict[str, Any]:
    places = [path / "scheduler", folder, path, folder.parent / "scheduler"]
    file = next((p / SCHEDULER for p in places if (p / SCHEDULER).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{path}: there is no scheduler/{SCHEDULER}, which holds the noise levels that the "
            f"network was trained for: download it too"
        )
    try:
        return read_json(file, dict[str, Any])
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _network(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    diffusers = import_diffusers(folder)
    return load_network(folder, config, diffusers.UNet2DModel)


def load_network(folder: Path, config: Mapping[str, Any], kind: Any) -> nn.Module:
    """Loads a network of diffusers, after comparing its shapes without memory for them.

    Arguments:
        folder: Folder of its configuration and weights.
        config: Its configuration.
        kind: Its class.

    Raises:
        CheckpointError: The weights are missing, damaged, or not those of the configuration.
    """
    stored = _stored_shapes(folder)
    try:
        with torch.device("meta"), at_most(2 * len(stored) + 100):
            expected = {k: v.shape for k, v in kind.from_config(dict(config)).state_dict().items()}
    except (TypeError, *UNREADABLE) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder}: {CONFIG} describes no network with its {len(stored)} tensors "
            f"({reason:.160})"
        ) from error
    renamed = {OLD_NAMES.sub(lambda found: NEW_NAMES[found[0]], k): v for k, v in stored.items()}
    wrong = sorted(key for key in {*expected, *renamed}
                   if not _same_size(expected.get(key), renamed.get(key)))
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} tensors do not fit {CONFIG} ({wrong[0]} ...): the folder is "
            f"incomplete, or was written by another version of diffusers"
        )
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, low_cpu_mem_usage=False, torch_dtype=torch.float32,
        )
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder}: its weights cannot be loaded ({reason:.160}); nothing in them was run"
        ) from error


def _same_size(a: torch.Size | None, b: torch.Size | None) -> bool:
    """Whether two shapes have as many numbers: old attention layers were 1 x 1 convolutions."""
    return a is not None and b is not None and a.numel() == b.numel() and a[0:1] == b[0:1]


def _stored_shapes(folder: Path) -> dict[str, torch.Size]:
    """Returns the shapes of the weights in a folder, from the headers of its files.

    As in diffusers, safetensors files are preferred to pickled ones.

    Raises:
        CheckpointError: There are none, or they cannot be read.
    """
    names = [f"{WEIGHTS}.safetensors", f"{WEIGHTS}*-of-*.safetensors", f"{WEIGHTS}.bin",
             f"{WEIGHTS}*-of-*.bin"]
    files = next((found for name in names if (found := sorted(folder.glob(name)))), [])
    if not files:
        raise CheckpointError(f"{folder}: its weights cannot be loaded: there is no {names[0]}")
    shapes: dict[str, torch.Size] = {}
    for file in files:
        try:
            if file.suffix == ".bin":
                shapes |= {key: value.shape for key, value in open_weights(file).tensors.items()}
                continue
            with safetensors.safe_open(file, "pt") as opened:
                shapes |= {key: torch.Size(opened.get_slice(key).get_shape())
                           for key in opened.keys()}
        except (safetensors.SafetensorError, OSError, CheckpointError) as error:
            raise CheckpointError(f"{folder}: its weights cannot be loaded ({error})") from error
    return shapes


def import_diffusers(path: Path) -> Any:
    """Returns the package diffusers; raises CheckpointError if it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise CheckpointError(
            f"{path}: a folder of diffusers is loaded by that package, which is not installed: "
            f'pip install "genprior[diffusers]"'
        ) from None
    return diffusers


def _steps(
    path: Path, scheduler: Mapping[str, Any], config: Mapping[str, Any]
) -> VariancePreserving | FlowMatching | None:
    name = str(scheduler.get("_class_name"))
    if FLOW.fullmatch(name):
        return FlowMatching(data_at=0, scale=float(scheduler.get("num_train_timesteps", 1000)))
    if name == EXPLODING and config.get("time_embedding_type") == "fourier":
        return None
    if not DISCRETE.fullmatch(name):
        raise CheckpointError(
            f"{path}: scheduler {name} is not supported: it must be {EXPLODING} with a network of "
            f"Fourier time embedding, or one of DDPM (DDPMScheduler, DDIMScheduler ...) or of "
            f"flows (FlowMatchEulerDiscreteScheduler)"
        )
    from diffusers import DDPMScheduler

    known = inspect.signature(DDPMScheduler.__init__).parameters
    settings = {key: value for key, value in scheduler.items() if key in known}
    settings.pop("variance_type", None)  # concerns its sampler only
    try:
        levels = DDPMScheduler(**settings).alphas_cumprod
        prediction = scheduler.get("prediction_type", "epsilon")
        table = config.get("time_embedding_type") == "learned"
        return VariancePreserving(levels, prediction, whole_steps=table)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: its scheduler cannot be used: {error}") from error


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
        "licence": _licence(path),
    }


def _licence(path: Path) -> str | None:
    """Returns the licence that a model card states in its header."""
    card = path / "README.md"
    text = card.read_text(errors="replace") if card.is_file() else ""
    header = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    match = re.search(r"^license:\s*(\S+)", header, re.MULTILINE)
    return match[1] if match else None
