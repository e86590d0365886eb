"""Networks of EDM as a state dictionary: DDPM++ and NCSN++ (Song), and ADM (Dhariwal).

The published files (.pkl) are programs, and are not read. Their weights can be saved without
running anything of genprior, or come from deepinv, which publishes them converted:

    torch.save(pickle.load(open("edm-ffhq-64x64-uncond-vp.pkl", "rb"))["ema"].state_dict(), "x.pt")

The structure follows from names and shapes of the tensors; the networks are those of deepinv.
They normalise in 32 groups of channels; the program of EDM has at least 4 channels in a group, so
that only networks of 128 channels or more are the same.

References:
    Elucidating the Design Space of Diffusion-Based Generative Models, Karras et al., 2022.
    Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2021
        (DDPM++, NCSN++).
    Diffusion Models Beat GANs on Image Synthesis, Dhariwal and Nichol, 2021 (ADM).

Differs from the authors' code:
    The augmentation input is zero, as in their sampler.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from genprior.core.errors import CheckpointError
from genprior.priors.arguments import at_most
from genprior.priors.base import Denoiser
from genprior.priors.external.edm_preconditioning import EDMPreconditioning
from genprior.priors.external.weight_files import UNREADABLE, check_fit, read_settings
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

BLOCK = re.compile(r"(enc|dec)\.(\d+)x\2_block(\d+)\.conv0\.weight")
CONSTANTS = "resample_filter"  # names end with it; filters of the resampling, not trained
GROUPS, SMALLEST_GROUP = 32, 4


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What a file does not show, in FILE.genprior.json.

    `groups` is "edm" or "deepinv", the program that trained a network of fewer than 128 channels.
    """

    data_std: float = 0.5
    groups: Literal["edm", "deepinv"] | None = None
    class_label: int | None = None


class EDMNetwork(nn.Module, Denoiser):
    """Diffusion prior from a network of EDM.

    Arguments:
        network: A network of deepinv with `forward_unet`.
        steps: Its preconditioning.
        channels: Image channels.
        stride: Divisor of the sides that it takes.
        size: Side of the images of its training, pixels.
        classes: Classes of a conditional network; None if it is not conditional.
        class_label: Class of a conditional network.
    """

    def __init__(
        self, network: Any, steps: EDMPreconditioning, channels: int, stride: int, size: int,
        classes: int | None = None, class_label: int | None = None,
    ) -> None:
        super().__init__()
        self.network, self.steps, self.channels, self.stride = network, steps, channels, stride
        self.size = (size, size)
        self.classes, self.class_label = classes, class_label

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        u, crop = pad_to_multiple(to_network(x, self.channels), self.stride)
        return from_network(self.steps.denoise(self._run, u, sigma)[crop], x.shape[1])

    def _run(self, u: Tensor, t: Tensor) -> Tensor:
        labels = None
        if self.classes is not None and self.class_label is not None:
            label = torch.full((len(u),), self.class_label, device=u.device)
            labels = one_hot(label, self.classes).to(u)
        return self.network.forward_unet(u, t, class_labels=labels)


def load(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[EDMNetwork, dict[str, Any]]:
    """Builds the prior of a state dictionary; returns it and a description.

    Raises:
        CheckpointError: The tensors are those of another variant, or the settings do not fit.
    """
    settings = read_settings(path, Settings, told)
    try:
        kind, structure = _structure({key: tuple(value.shape) for key, value in tensors.items()})
        with torch.device("meta"), at_most(2 * len(tensors) + 100):
            expected = kind(**structure).state_dict()
        check_fit(path, _trained(tensors), _trained(expected))
        network = kind(**structure)
    except CheckpointError:
        raise
    except (KeyError, *UNREADABLE) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: cannot be built as a network of EDM ({reason:.160}): it is another variant"
        ) from error
    weights = {key: value.float() for key, value in _trained(tensors).items()}
    network.load_state_dict(weights, strict=False)  # the constants are left out
    groups = _set_groups(path, network, structure["model_channels"], settings)
    classes, label = structure["label_dim"] or None, settings.class_label
    if (label is None) != (classes is None) or not 0 <= (label or 0) < (classes or 1):
        raise CheckpointError(
            f"{path}: the network has {classes or 'no'} classes, and class_label is {label}: "
            f'write {{"class_label": N}} to {path}.genprior.json for a network with classes only'
        )
    try:
        steps = EDMPreconditioning(settings.data_std)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    size, levels = structure["img_resolution"], len(structure["channel_mult"])
    prior = EDMNetwork(network, steps, structure["in_channels"], 2 ** (levels - 1), size, classes,
                       label)
    title = {"ncsn": "NCSN++", "ddpm": "DDPM++"}.get(structure.get("model_type", ""), "ADM")
    return prior, {
        "format": "edm",
        "prior": f"{title} of {levels} levels, {structure['num_blocks']} blocks a level, "
                 f"{structure['model_channels']} channels",
        "parameters": sum(p.numel() for p in network.parameters()),
        "channels": prior.channels,
        "trained_size": size,
        "image_range": [-1, 1],
        "prediction": steps.prediction,
        "data_std": settings.data_std,
        "noise_levels": steps.range,
        "groups": groups,
        "classes": classes,
        "class_label": label,
        "assumed": f"the standard deviation of the data is not in the file; "
                   f"{path.name}.genprior.json sets it",
    }


def _structure(shape: Mapping[str, tuple[int, ...]]) -> tuple[Any, dict[str, Any]]:
    """Returns the class of a network in deepinv and its arguments.

    Raises:
        KeyError: A tensor that shows the structure is missing.
    """
    from deepinv.models import ADMUNet, NCSNpp

    blocks: dict[int, list[int]] = {}
    for key in shape:
        match = BLOCK.fullmatch(key)
        if match and match[1] == "enc":
            blocks.setdefault(int(match[2]), []).append(int(match[3]))
    sizes = sorted(blocks, reverse=True)
    if not sizes:
        raise KeyError("it has no blocks")
    embedding, width = shape["map_layer0.weight"]
    fourier, adm = "map_noise.freqs" in shape, "out_conv.weight" in shape
    width = width // 2 if fourier else width
    first = shape[f"enc.{sizes[0]}x{sizes[0]}_conv.weight"]
    last = "out_conv.weight" if adm else f"dec.{sizes[0]}x{sizes[0]}_aux_conv.weight"
    structure = {
        "img_resolution": sizes[0],
        "in_channels": first[1],
        "out_channels": shape[last][0],
        "label_dim": shape["map_label.weight"][1] if "map_label.weight" in shape else 0,
        "augment_dim": shape["map_augment.weight"][1] if "map_augment.weight" in shape else 0,
        "model_channels": width,
        "channel_mult": [shape[f"enc.{n}x{n}_block0.conv0.weight"][0] // width for n in sizes],
        "channel_mult_emb": embedding // width,
        "num_blocks": 1 + max(blocks[sizes[0]]),
        "attn_resolutions": [n for n in sizes if f"enc.{n}x{n}_block0.qkv.weight" in shape],
        "pretrained": None,
    }
    if adm:
        return ADMUNet, structure
    return NCSNpp, {**structure, "model_type": "ncsn" if fourier else "ddpm"}


def _set_groups(path: Path, network: nn.Module, width: int, settings: Settings) -> int:
    """Sets the groups of the normalisation layers; returns the smallest number of a layer."""
    layers = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    if width < GROUPS * SMALLEST_GROUP and settings.groups is None:
        raise CheckpointError(
            f"{path}: has {width} channels, which the program of EDM and deepinv normalise in "
            f'different groups: write {{"groups": "edm"}} or {{"groups": "deepinv"}}, whichever '
            f"trained it, to {path.name}.genprior.json"
        )
    if settings.groups == "edm":
        for layer in layers:
            layer.num_groups = min(GROUPS, layer.num_channels // SMALLEST_GROUP)
    return min(layer.num_groups for layer in layers)


def _trained(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.endswith(CONSTANTS)}
