"""IRCNN, 25 dilated networks for 25 noise levels, in the files of KAIR (ircnn_color.pth).

    D(x, sigma) = x - F_k(x),   k = ceil(255 sigma / 2)     images in [0, 1]

Network k is for noise of 2 k / 255. Above 50 / 255 the last one is scaled (`single_level`).

References:
    Learning Deep CNN Denoiser Prior for Image Restoration, Zhang et al., 2017.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.errors import CheckpointError
from genprior.core.linalg import per_image
from genprior.priors.base import Denoiser
from genprior.priors.external.single_level import denoise_any
from genprior.priors.external.weight_files import NoSettings, check_fit, read_settings
from genprior.priors.nets.channels import from_network, to_network

COUNT, STEP = 25, 2 / 255
DILATIONS = (1, 2, 3, 4, 3, 2, 1)


def level_network(channels: int, width: int) -> nn.Sequential:
    """Returns the network of one level: seven dilated 3 x 3 convolutions.

    Arguments:
        channels: Image channels.
        width: Feature channels.
    """
    widths = [channels, *[width] * (len(DILATIONS) - 1), channels]
    layers: list[nn.Module] = []
    for a, b, d in zip(widths[:-1], widths[1:], DILATIONS, strict=True):
        layers += [nn.Conv2d(a, b, 3, padding=d, dilation=d), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class IRCNN(nn.Module, Denoiser):
    """Denoiser prior from 25 networks, one for each noise level.

    Arguments:
        channels: Image channels.
        width: Feature channels of each network.
    """

    receptive_radius = sum(DILATIONS)

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.levels = nn.ModuleList(level_network(channels, width) for _ in range(COUNT))

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        u = to_network(x, self.channels)
        levels = sigma.flatten().tolist() if isinstance(sigma, Tensor) else [float(sigma)]
        if len(levels) == 1:
            return from_network(self._at(u, levels[0]), x.shape[1])
        parts = [self._at(image, s) for image, s in zip(u.split(1), levels, strict=True)]
        return from_network(torch.cat(parts), x.shape[1])

    def _at(self, u: Tensor, sigma: float) -> Tensor:
        """Denoises images of one noise level."""
        k = math.ceil(sigma / STEP - 1e-6)  # a level of the list is not rounded up
        network = self.levels[min(max(k, 1), COUNT) - 1]
        if k <= COUNT:
            return u - network(u)
        return denoise_any(network, u, per_image(sigma, u), COUNT * STEP)


def load(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[IRCNN, dict[str, Any]]:
    """Builds the prior of 25 state dictionaries; returns it and a description.

    Raises:
        CheckpointError: The tensors are those of another variant.
    """
    read_settings(path, NoSettings, told)
    shape = tensors["0.model.0.weight"].shape
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise CheckpointError(f"{path}: is no IRCNN of grey or colour images")
    with torch.device("meta"):
        prior = IRCNN(shape[1], shape[0])
    own = {f"levels.{key.replace('.model.', '.', 1)}": value for key, value in tensors.items()}
    check_fit(path, own, prior.state_dict())
    prior.load_state_dict({key: value.float() for key, value in own.items()}, assign=True)
    about = {
        "format": "ircnn",
        "prior": "IRCNN",
        "parameters": sum(p.numel() for p in prior.parameters()),
        "channels": prior.channels,
        "image_range": [0, 1],
        "noise_levels": [STEP, COUNT * STEP],
        "receptive_radius": prior.receptive_radius,
    }
    return prior, about
