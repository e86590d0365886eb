"""Files of guided-diffusion (.pt) and of torchcfm, which trains the same UNet by flow matching.

The file has no configuration: levels, blocks, widths and the place of attention follow from the
names and shapes of its tensors. It does not show the heads of attention, the order of queries,
keys and values, and the noise schedule. Defaults are those of the published models, which
`Settings` replaces:

    heads     of 64 channels; 4 heads where 64 does not divide the channels
    order     heads before queries, keys and values; the 64 x 64 ImageNet model has the other one
    schedule  linear; the 64 x 64 ImageNet model (192 channels, 3 blocks a level) has cosine

Of torchcfm, heads have 64 channels or there is one head, data are at time 1, images in [-1, 1].

References:
    Diffusion Models Beat GANs on Image Synthesis, Dhariwal and Nichol, 2021.
    Improved Denoising Diffusion Probabilistic Models, Nichol and Dhariwal, 2021.
    Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, Tong
        et al., 2024 (torchcfm).

Differs from the authors' code:
    1. Time steps may lie between those of the training.
    2. The learned variance (three further output channels) is not used.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from genprior.core.errors import CheckpointError
from genprior.core.schedules import ddpm_sigmas
from genprior.priors.base import Denoiser
from genprior.priors.external.flow_matching import FlowMatching
from genprior.priors.external.variance_preserving import Prediction, VariancePreserving
from genprior.priors.external.weight_files import check_fit, read_settings
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

MAX_BLOCKS = 1000
GROUPS = 32
# Tables of the noise schedule in files that were saved by deepinv's DiffUNet.
TABLES = ("sqrt_alphas_cumprod", "sqrt_1m_alphas_cumprod")
HEAD_CHANNELS, HEADS = 64, 4
Resampling = Literal["none", "down", "up"]


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What a file does not show, in FILE.genprior.json; None takes the published value."""

    heads: int | None = None
    head_channels: int | None = None
    new_attention_order: bool | None = None
    schedule: Literal["linear", "cosine"] | None = None
    prediction: Prediction = "epsilon"
    class_label: int | None = None


class FlowSettings(msgspec.Struct, forbid_unknown_fields=True):
    """What a file of torchcfm does not show, in FILE.genprior.json."""

    heads: int | None = None
    head_channels: int | None = None
    new_attention_order: bool | None = None
    data_at: Literal[0, 1] = 1
    class_label: int | None = None


class GuidedDiffusion(nn.Module, Denoiser):
    """Diffusion prior from a UNet of guided-diffusion, or flow prior from one of torchcfm.

    Arguments:
        network: The UNet.
        steps: Noise levels of its time steps, or of the times of a flow.
        class_label: Class of a conditional network.
    """

    def __init__(
        self, network: "GuidedUNet", steps: VariancePreserving | FlowMatching,
        class_label: int | None = None,
    ) -> None:
        super().__init__()
        self.network, self.steps, self.class_label = network, steps, class_label
        self.channels, self.stride = network.channels, network.multiple

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        u, crop = pad_to_multiple(to_network(x, self.channels), self.stride)
        return from_network(self.steps.denoise(self._run, u, sigma)[crop], x.shape[1])

    def _run(self, u: Tensor, t: Tensor) -> Tensor:
        return self.network(u, t, self.class_label)[:, : self.channels]


class GuidedUNet(nn.Module):
    """UNet of guided-diffusion with the structure of a state dictionary.

    Arguments:
        tensors: The state dictionary; only names and shapes are used.
        settings: Heads and order of attention.
        new_order: Queries, keys and values are split before the heads.
        otherwise: Number of heads where 64 does not divide the channels.

    Raises:
        KeyError: A tensor that shows the structure is missing.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], settings: Settings | FlowSettings, new_order: bool,
        otherwise: int = HEADS,
    ) -> None:
        super().__init__()
        shape = {key: tuple(value.shape) for key, value in tensors.items()}
        embedding, self.width = shape["time_embed.0.weight"]
        first, self.channels = shape["input_blocks.0.0.weight"][:2]
        self.blocks, self.levels = _structure(shape)
        self.multiple = 2 ** (self.levels - 1)
        self.time_embed = nn.Sequential(
            nn.Linear(self.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        if "label_emb.weight" in shape:
            self.label_emb = nn.Embedding(*shape["label_emb.weight"])

        def block(prefix: str, resampling: Resampling) -> nn.ModuleList:
            return _block(shape, prefix, resampling, settings, new_order, otherwise)

        halving = range(self.blocks + 1, self.levels * (self.blocks + 1), self.blocks + 1)
        count = self.levels * (self.blocks + 1)
        self.input_blocks = nn.ModuleList([
            block(f"input_blocks.{i}.", "down" if i in halving else "none") for i in range(count)
        ])
        self.middle_block = block("middle_block.", "none")
        self.output_blocks = nn.ModuleList([
            block(f"output_blocks.{i}.", "up") for i in range(count)
        ])
        outputs, last = shape["out.2.weight"][:2]
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, last), nn.SiLU(), nn.Conv2d(last, outputs, 3, padding=1)
        )

    def forward(self, u: Tensor, t: Tensor, class_label: int | None) -> Tensor:
        """Returns predictions (B, 3 or 6, H, W) for images u (B, C, H, W) at times t (B,)."""
        e = self.time_embed(_sinusoids(t, self.width))
        if class_label is not None:
            e = e + self.label_emb.weight[class_label]
        skips, h = [], u
        for block in self.input_blocks:
            h = _run(block, h, e)
            skips.append(h)
        h = _run(self.middle_block, h, e)
        for block in self.output_blocks:
            h = _run(block, torch.cat((h, skips.pop()), dim=1), e)
        return self.out(h)


class Residual(nn.Module):
    """Residual block with a time embedding that shifts, or scales and shifts, its features.

    Arguments:
        inputs, outputs: Channels.
        embedding: Dimension of the time embedding.
        scales: Whether the embedding scales too.
        projects: Whether the skip connection has a 1 x 1 convolution.
        resampling: Whether the block halves or doubles the resolution.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int, scales: bool, projects: bool,
        resampling: Resampling,
    ) -> None:
        super().__init__()
        self.scales, self.resampling = scales, resampling
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(embedding, 2 * outputs if scales else outputs)
        )
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, outputs), nn.SiLU(), nn.Identity(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if projects else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        norm, activate, convolve = self.in_layers
        h = convolve(_resample(activate(norm(x)), self.resampling))
        x = _resample(x, self.resampling)
        e = self.emb_layers(e)[..., None, None]
        norm, *rest = self.out_layers
        if self.scales:
            scale, shift = e.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + e)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    """Self-attention of all pixels.

    Arguments:
        channels: Channels.
        heads: Number of heads.
        new_order: See `GuidedUNet`.
    """

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.qkv(self.norm(x.flatten(2)))
        order = (3, self.heads) if self.new_order else (self.heads, 3)
        h = h.unflatten(1, (*order, -1)).transpose(-2, -1)
        q, k, v = h.unbind(1 if self.new_order else 2)
        h = scaled_dot_product_attention(q, k, v).transpose(-2, -1).flatten(1, 2)
        return x + self.proj_out(h).reshape(x.shape)


class Resample(nn.Module):
    """Convolution that halves the resolution, or follows its doubling.

    Arguments:
        channels: Channels.
        resampling: "down" or "up".
    """

    def __init__(self, channels: int, resampling: Resampling) -> None:
        super().__init__()
        if resampling == "down":
            self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        else:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.resampling = resampling

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        if self.resampling == "down":
            return self.op(x)
        return self.conv(_resample(x, "up"))


def load(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[GuidedDiffusion, dict[str, Any]]:
    """Builds the prior of a state dictionary; returns it and a description.

    Raises:
        CheckpointError: The tensors are those of another variant, or the settings do not fit.
    """
    settings = read_settings(path, Settings, told)
    tensors = {key: value for key, value in tensors.items() if key not in TABLES}
    network, about = _network(path, tensors, settings)
    schedule = settings.schedule or ("cosine" if _is_small(network) else "linear")
    s = 2 * torch.as_tensor(ddpm_sigmas(schedule))
    steps = VariancePreserving(1 / (1 + s**2), settings.prediction)
    about |= {
        "format": "guided-diffusion",
        "prediction": settings.prediction,
        "beta_schedule": schedule,
        "noise_levels": steps.range,
        "assumed": f"heads, order and schedule are not in the file; {path.name}.genprior.json "
                   f"sets them",
    }
    return GuidedDiffusion(network, steps, settings.class_label), about


def load_flow(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[GuidedDiffusion, dict[str, Any]]:
    """Builds the prior of a state dictionary of torchcfm; results and errors as of `load`."""
    settings = read_settings(path, FlowSettings, told)
    network, about = _network(path, tensors, settings, otherwise=1)
    steps = FlowMatching(settings.data_at)
    about |= {
        "format": "torchcfm",
        **steps.describe(),
        "assumed": f"heads, order and the time of the data are not in the file; "
                   f"{path.name}.genprior.json sets them",
    }
    return GuidedDiffusion(network, steps, settings.class_label), about


def _network(
    path: Path, tensors: Mapping[str, Tensor], settings: Settings | FlowSettings,
    otherwise: int = HEADS,
) -> tuple[GuidedUNet, dict[str, Any]]:
    """Builds the UNet of a state dictionary; returns it and a description of it."""
    try:
        blocks, _ = _structure({key: tuple(value.shape) for key, value in tensors.items()})
        small = tensors["time_embed.0.weight"].shape[1] == 192 and blocks == 3
        new_order = settings.new_attention_order
        new_order = small and otherwise != 1 if new_order is None else new_order
        network = GuidedUNet(tensors, settings, new_order, otherwise)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be built as a network of guided-diffusion ({error}): it is another "
            f"variant, or {path.name}.genprior.json does not fit"
        ) from error
    check_fit(path, tensors, network.state_dict())
    network.load_state_dict({key: value.float() for key, value in tensors.items()})
    classes = tensors["label_emb.weight"].shape[0] if "label_emb.weight" in tensors else None
    label = settings.class_label
    if (label is None) != (classes is None) or not 0 <= (label or 0) < (classes or 1):
        raise CheckpointError(
            f"{path}: the network has {classes or 'no'} classes, and class_label is {label}: "
            f'write {{"class_label": N}} to {path}.genprior.json for a network with classes only'
        )
    return network, {
        "prior": f"UNet of {network.levels} levels, {blocks} blocks a level, {network.width} "
                 f"channels",
        "parameters": sum(p.numel() for p in network.parameters()),
        "channels": network.channels,
        "image_range": [-1, 1],
        "attention_heads": [m.heads for m in network.modules() if isinstance(m, Attention)],
        "new_attention_order": new_order,
        "classes": classes,
        "class_label": label,
    }


def _is_small(network: GuidedUNet) -> bool:
    """Whether a network has the structure of the 64 x 64 ImageNet model."""
    return network.width == 192 and network.blocks == 3


def _structure(shape: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Returns the residual blocks per level, and the number of levels.

    Every level has one output block more than residual blocks. Except at the finest level, the
    last one doubles the resolution, by a convolution or a second residual block.
    """
    count = 1 + max(int(key.split(".")[1]) for key in shape if key.startswith("output_blocks."))
    if count > MAX_BLOCKS:
        raise ValueError(f"it has more than {MAX_BLOCKS} blocks")
    doubling = [i for i in range(count) if _doubles(shape, f"output_blocks.{i}.")]
    per_level = doubling[0] + 1 if doubling else count
    if count % per_level or doubling != list(range(per_level - 1, count - 1, per_level)):
        raise ValueError("its levels have different numbers of blocks")
    return per_level - 1, count // per_level


def _doubles(shape: Mapping[str, tuple[int, ...]], prefix: str) -> bool:
    return any(f"{prefix}{j}.{name}" in shape
               for j in (1, 2) for name in ("conv.weight", "in_layers.2.weight"))


def _block(
    shape: Mapping[str, tuple[int, ...]], prefix: str, resampling: Resampling,
    settings: Settings | FlowSettings, new_order: bool, otherwise: int,
) -> nn.ModuleList:
    """Builds the layers of one block from the tensors whose names begin with a prefix."""
    layers: list[nn.Module] = []
    count = 1 + max(
        (int(key.removeprefix(prefix).split(".")[0]) for key in shape if key.startswith(prefix)),
        default=-1,
    )
    residuals = 0
    for j in range(count):
        names = {key.removeprefix(f"{prefix}{j}."): size for key, size in shape.items()
                 if key.startswith(f"{prefix}{j}.")}
        if "in_layers.2.weight" in names:
            resamples = resampling == "down" or (resampling == "up" and residuals > 0)
            layers.append(_residual(names, resampling if resamples else "none"))
            residuals += 1
        elif "qkv.weight" in names:
            channels = names["qkv.weight"][1]
            layers.append(Attention(channels, _heads(channels, settings, otherwise), new_order))
        elif "op.weight" in names or "conv.weight" in names:
            direction: Resampling = "down" if "op.weight" in names else "up"
            layers.append(Resample(names["op.weight" if direction == "down" else "conv.weight"][0],
                                   direction))
        else:
            outputs, inputs = names["weight"][:2]
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
    return nn.ModuleList(layers)


def _residual(names: Mapping[str, tuple[int, ...]], resampling: Resampling) -> Residual:
    outputs, inputs = names["in_layers.2.weight"][:2]
    features, embedding = names["emb_layers.1.weight"]
    projects = "skip_connection.weight" in names
    return Residual(inputs, outputs, embedding, features == 2 * outputs, projects, resampling)


def _heads(channels: int, settings: Settings | FlowSettings, otherwise: int) -> int:
    if settings.heads is not None:
        heads = settings.heads
    else:
        size = settings.head_channels or HEAD_CHANNELS
        heads = otherwise if channels % size and not settings.head_channels else channels // size
    if heads < 1 or channels % heads:
        raise ValueError(f"{channels} channels cannot be split into {heads} heads")
    return heads


def _run(block: nn.ModuleList, h: Tensor, e: Tensor) -> Tensor:
    for layer in block:
        h = layer(h) if isinstance(layer, nn.Conv2d) else layer(h, e)
    return h


def _resample(x: Tensor, resampling: Resampling) -> Tensor:
    if resampling == "down":
        return nn.functional.avg_pool2d(x, 2)
    return interpolate(x, scale_factor=2) if resampling == "up" else x


def _sinusoids(t: Tensor, width: int) -> Tensor:
    """Returns the embedding of times (B,) by sines and cosines, shape (B, width)."""
    half = width // 2
    frequencies = torch.exp(
        -math.log(10_000) / half * torch.arange(half, device=t.device, dtype=torch.float32)
    )
    angles = t[:, None].float() * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=1).to(t)
