"""Denoisers that the package spandrel recognises by their tensors: SCUNet, SwinIR, NAFNet ...

    D(x) = F(x)     images in [0, 1], for one noise level (`single_level`) or blind

A network of these kinds takes no noise level, and its tensors do not show for which noise it was
trained. The names of the published files do (scunet_color_25.pth,
005_colorDN_DFWB_s128w8_SwinIR-M_noise25.pth, gaussian_color_denoising_sigma25.pth,
NAFNet-SIDD-width32.pth); else FILE.genprior.json has `noise_level` or `blind`. Networks that
enlarge, deblur or fill in images are no denoisers, and are refused.

References:
    Practical Blind Image Denoising via Swin-Conv-UNet and Data Synthesis, Zhang et al., 2023
        (SCUNet).
    SwinIR: Image Restoration Using Swin Transformer, Liang et al., 2021.
    Simple Baselines for Image Restoration, Chen et al., 2022 (NAFNet).
    Restormer: Efficient Transformer for High-Resolution Image Restoration, Zamir et al., 2022.
    Multi-Stage Progressive Image Restoration, Zamir et al., 2021 (MPRNet; its last stage is used).
    Uformer: A General U-Shaped Transformer for Image Restoration, Wang et al., 2022.
    KBNet: Kernel Basis Network for Image Restoration, Zhang et al., 2023.
    Efficient and Explicit Modelling of Image Hierarchies for Image Restoration, Li et al., 2023
        (GRL).
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from genprior.core.errors import CheckpointError
from genprior.core.linalg import per_image
from genprior.priors.base import Denoiser
from genprior.priors.external.single_level import Settings, check_level, denoise_any
from genprior.priors.external.spandrel_registry import architectures
from genprior.priors.external.weight_files import UNREADABLE, read_settings
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

# Architectures that were published with weights for white or real noise; not DnCNN and DRUNet,
# which have modules of their own. The last four are in the package spandrel_extra_arches.
DENOISERS = ("SCUNet", "SwinIR", "NAFNet", "Uformer", "KBNet", "GRL", "Restormer", "MPRNet",
             "MIRNet2", "M3SNet")
# Names of published files.
LEVEL_IN_NAME = re.compile(r"(?:noise|sigma|scunet_(?:gray|color)_)(\d{1,2})$")
BLIND_IN_NAME = re.compile(r"blind|real|SIDD", re.IGNORECASE)


class SpandrelDenoiser(nn.Module, Denoiser):
    """Denoiser prior from a network of spandrel.

    Arguments:
        network: The network.
        channels: Image channels.
        multiple: Divisor of the sides that it takes.
        minimum: Smallest side that it takes, pixels.
        square: Whether it takes square images only.
        noise_level: The noise level of its training, in units of [0, 1]; None for a blind network.
    """

    def __init__(
        self, network: nn.Module, channels: int, multiple: int = 1, minimum: int = 0,
        square: bool = False, noise_level: float | None = None,
    ) -> None:
        super().__init__()
        self.network, self.channels, self.noise_level = network, channels, noise_level
        self.multiple, self.minimum, self.square = multiple, minimum, square

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        u = to_network(x, self.channels)
        if self.noise_level is None:
            u = u - self._removed(u)
        else:
            u = denoise_any(self._removed, u, per_image(sigma, u), self.noise_level)
        return from_network(u, x.shape[1])

    def _removed(self, u: Tensor) -> Tensor:
        least = max(self.minimum, *u.shape[2:]) if self.square else self.minimum
        side = -(-least // self.multiple) * self.multiple
        padded, crop = pad_to_multiple(u, side if min(u.shape[2:]) < side else self.multiple)
        x_hat = self.network(padded)
        if not isinstance(x_hat, Tensor):
            x_hat = x_hat[0]  # of several stages, the last one comes first
        return u - x_hat[crop]


def load(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[SpandrelDenoiser, dict[str, Any]]:
    """Builds the prior of a state dictionary; returns it and a description.

    Raises:
        CheckpointError: spandrel is missing or does not know the network, it is no denoiser, or
            its noise level is not known.
    """
    settings = read_settings(path, Settings, told)
    registry = architectures()
    if registry is None:
        raise CheckpointError(
            f"{path}: this format is read by spandrel, which is not installed: "
            f'pip install "genprior[spandrel]"'
        )
    found = _loaded(path, tensors, registry)
    name, channels, scale = found.architecture.name, found.input_channels, found.scale
    kinds = ", ".join(DENOISERS)
    if scale != 1 or found.purpose != "Restoration" or found.architecture.id not in DENOISERS:
        use = {"SR": f"enlarges images {scale} times", "FaceSR": "enlarges faces",
               "Inpainting": "fills in pixels"}.get(found.purpose, "restores images otherwise")
        raise CheckpointError(
            f"{path}: is a network {name}, which {use}: it is no prior, as it denoises no images; "
            f"choose a denoiser ({kinds}, DnCNN, DRUNet)"
        )
    if channels != found.output_channels or channels not in (1, 3):
        raise CheckpointError(
            f"{path}: a network from {channels} to {found.output_channels} channels is no "
            f"denoiser of grey or colour images"
        )
    level = _noise_level(path, settings)
    size = found.size_requirements
    prior = SpandrelDenoiser(found.model, channels, size.multiple_of, size.minimum, size.square,
                             level)
    about = {
        "format": "spandrel",
        "prior": name,
        "parameters": sum(p.numel() for p in found.model.parameters()),
        "channels": channels,
        "image_range": [0, 1],
        "noise_levels": level or "blind",
    }
    return prior, about


def _loaded(path: Path, tensors: Mapping[str, Tensor], registry: Any) -> Any:
    from spandrel import UnsupportedModelError

    single = {key: value.float() if value.is_floating_point() else value
              for key, value in tensors.items()}
    try:
        with warnings.catch_warnings(action="ignore"):  # of its use of torch
            return registry.load(single)
    except UnsupportedModelError as error:
        raise CheckpointError(f"{path}: spandrel knows no network with these tensors") from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: spandrel cannot build its network ({reason:.160}): it is another variant"
        ) from error


def _noise_level(path: Path, settings: Settings) -> float | None:
    """Returns the noise level of a network from its settings or its name; None if it is blind."""
    level = check_level(path, settings.noise_level)
    if level is not None or settings.blind:
        return None if settings.blind else level
    match = LEVEL_IN_NAME.search(path.stem)
    if match and 0 < int(match[1]):
        return int(match[1]) / 255
    if BLIND_IN_NAME.search(path.stem):
        return None
    raise CheckpointError(
        f"{path}: does not show for which noise it was trained: write "
        f'{{"noise_level": 0.098}} for noise of 25/255, or {{"blind": true}} for a network of all '
        f"noise levels, to {path.name}.genprior.json"
    )
