"""DCGAN generator of the PyTorch examples (netG_*.pth): transposed convolutions.

    z (nz, 1, 1) -> 4 x 4 -> 8 x 8 -> ... -> size x size,  Tanh: images in [-1, 1]

References:
    Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks,
        Radford, Metz and Chintala, 2016.
    The example "DCGAN" of PyTorch, pytorch/examples, dcgan/main.py.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.errors import CheckpointError
from genprior.priors.base import Layered
from genprior.priors.external.weight_files import NoSettings, check_fit, read_settings
from genprior.priors.nets.channels import from_network


class TransposedDCGAN(nn.Module, Layered):
    """Decoder prior from the DCGAN generator of the PyTorch examples.

    Arguments:
        latent: Dimension of the latent vector.
        widths: Features after each transposed convolution but the last.
        channels: Image channels.
    """

    def __init__(self, latent: int, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.latent, self.channels = latent, channels
        self.size = (4 * 2 ** len(widths),) * 2
        layers: list[nn.Module] = []
        stride, padding = 1, 0
        for inputs, outputs in zip((latent, *widths), widths, strict=False):
            layers += [
                nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            stride, padding = 2, 1
        last = nn.ConvTranspose2d(widths[-1], channels, 4, stride, padding, bias=False)
        self.main = nn.Sequential(*layers, last, nn.Tanh())

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        if tuple(image_shape[2:]) != self.size:
            raise ValueError(
                f"this prior takes images of {self.size[0]} x {self.size[1]} pixels (height x "
                f"width), got {image_shape[2]} x {image_shape[3]}: crop or resize the images"
            )
        return image_shape[0], self.latent

    def layers(self, image_shape: torch.Size) -> Sequence[Callable[[Tensor], Tensor]]:
        self.latent_shape(image_shape)
        parts = [self.main[i : i + 3] for i in range(0, len(self.main), 3)]
        first, *middle, last = parts
        return (
            lambda z: first(z[..., None, None]),
            *middle,
            lambda h: from_network((last(h) + 1) / 2, image_shape[1]),
        )


def load(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[TransposedDCGAN, dict[str, Any]]:
    """Builds the prior of a state dictionary; returns it and a description.

    Raises:
        CheckpointError: The tensors are those of another variant.
    """
    read_settings(path, NoSettings, told)
    numbers = [key.split(".")[1] for key in tensors if key.startswith("main.")]
    if not all(number.isdecimal() and len(number) < 4 for number in numbers):
        raise CheckpointError(f"{path}: is no DCGAN generator of transposed convolutions")
    count = max(map(int, numbers)) // 3
    weights = [tensors.get(f"main.{3 * i}.weight") for i in range(count + 1)]
    if any(weight is None or weight.ndim != 4 for weight in weights):
        raise CheckpointError(f"{path}: is no DCGAN generator of transposed convolutions")
    shapes = [weight.shape for weight in weights if weight is not None]
    prior = TransposedDCGAN(shapes[0][0], [s[1] for s in shapes[:-1]], shapes[-1][1])
    check_fit(path, tensors, prior.state_dict())
    prior.load_state_dict({
        key: value.float() if value.is_floating_point() else value
        for key, value in tensors.items()
    })
    about = {
        "format": "pytorch-examples-dcgan",
        "prior": f"DCGAN generator with {prior.latent} latent dimensions",
        "parameters": sum(p.numel() for p in prior.parameters()),
        "channels": prior.channels,
        "size": list(prior.size),
        "image_range": [-1, 1],
    }
    return prior, about
