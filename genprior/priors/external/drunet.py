"""DRUNet, the denoiser of DPIR, in the files of KAIR (drunet_color.pth, drunet_gray.pth).

    D(x, sigma) = F(x, sigma)      sigma as a further image, images in [0, 1]

References:
    Plug-and-Play Image Restoration with Deep Denoiser Prior, Zhang et al., 2021.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, cat, nn

from genprior.core.errors import CheckpointError
from genprior.core.linalg import per_image
from genprior.priors.base import Denoiser
from genprior.priors.external.weight_files import NoSettings, check_fit, read_settings
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

LEVELS = ("m_head.weight", "m_down2.0.res.0.weight", "m_down3.0.res.0.weight",
          "m_body.0.res.0.weight")


class DRUNetDenoiser(nn.Module, Denoiser):
    """Denoiser prior from a DRUNet of deepinv.

    Arguments:
        network: The network.
        channels: Image channels.
    """

    stride = 8

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels = network, channels

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        u, crop = pad_to_multiple(to_network(x, self.channels), self.stride)
        level = per_image(sigma, u).expand_as(u[:, :1])
        return from_network(self.network.forward_unet(cat((u, level), dim=1))[crop], x.shape[1])


def load(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[DRUNetDenoiser, dict[str, Any]]:
    """Builds the prior of a state dictionary; returns it and a description.

    Raises:
        CheckpointError: The tensors are those of another variant.
    """
    from deepinv.models import DRUNet

    read_settings(path, NoSettings, told)
    channels = tensors["m_tail.weight"].shape[0]
    inputs = tensors["m_head.weight"].shape[1]
    missing = [key for key in LEVELS if key not in tensors]
    if missing or inputs != channels + 1:
        raise CheckpointError(
            f"{path}: is no DRUNet of {channels} image channels and a noise map "
            f"({inputs} input channels; missing: {', '.join(missing) or 'nothing'})"
        )
    widths = [tensors[key].shape[0] for key in LEVELS]
    blocks = len({key.split(".")[1] for key in tensors if key.startswith("m_body.")})
    network = DRUNet(channels, channels, nc=widths, nb=blocks, pretrained=None)
    check_fit(path, tensors, network.state_dict())
    network.load_state_dict({key: value.float() for key, value in tensors.items()})
    about = {
        "format": "drunet",
        "prior": "DRUNet",
        "parameters": sum(p.numel() for p in network.parameters()),
        "channels": channels,
        "widths": widths,
        "blocks": blocks,
        "image_range": [0, 1],
        "noise_levels": "given to the network",
    }
    return DRUNetDenoiser(network, channels), about
