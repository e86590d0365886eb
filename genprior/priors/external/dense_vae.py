"""Variational autoencoder of the PyTorch examples: fully connected, one hidden layer.

    x | z ~ sigmoid(W4 relu(W3 z + b3) + b4),   q(z | x) = N(mu(h), diag exp(v(h))),
    h = relu(W1 x + b1),   mu = W21 h + b21,   v = W22 h + b22

References:
    Auto-Encoding Variational Bayes, Kingma and Welling, 2014.
    The example "Basic VAE" of PyTorch, pytorch/examples, vae/main.py.

Differs from the authors' code:
    Solvers need a Gaussian likelihood: its standard deviation is a setting, 0.1 by default.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from genprior.core.errors import CheckpointError
from genprior.priors.base import Variational
from genprior.priors.external.weight_files import check_fit, read_settings
from genprior.priors.nets.channels import from_network, to_network


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What a file does not show, in FILE.genprior.json.

    `shape` is channels, height and width of the images; None is a grey square image. `std` is the
    standard deviation of an image around a decoded one, in units of [0, 1].
    """

    shape: tuple[int, int, int] | None = None
    std: float = 0.1


class DenseVAE(nn.Module, Variational):
    """Decoder prior from the VAE of the PyTorch examples.

    Arguments:
        latent: Dimension of the latent vector.
        hidden: Features of the hidden layers.
        shape: Channels, height and width of the images.
        std: Standard deviation of the Gaussian likelihood, in units of [0, 1].
    """

    def __init__(
        self, latent: int, hidden: int, shape: tuple[int, int, int], std: float
    ) -> None:
        super().__init__()
        pixels = math.prod(shape)
        self.shape, self.latent, self.std = shape, latent, std
        self.channels, self.size = shape[0], shape[1:]
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc21, self.fc22 = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.fc3, self.fc4 = nn.Linear(latent, hidden), nn.Linear(hidden, pixels)

    @property
    def decoder_std(self) -> Tensor:
        return self.fc4.bias.new_tensor(self.std)

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        if tuple(image_shape[2:]) != self.size:
            raise ValueError(
                f"this prior takes images of {self.size[0]} x {self.size[1]} pixels (height x "
                f"width), got {image_shape[2]} x {image_shape[3]}: crop or resize the images"
            )
        return image_shape[0], self.latent

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        self.latent_shape(image_shape)
        x = self.fc4(self.fc3(z).relu()).sigmoid()
        return from_network(x.unflatten(1, self.shape), image_shape[1])

    def encode(self, x: Tensor) -> Tensor:
        return self._posterior(x)[0]

    def reconstruct(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        mean, log_variance = self._posterior(x)
        shrinkage = 1 / temperature**2 - 1
        return self.decode(mean / (1 + shrinkage * log_variance.exp()), x.shape)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of q(z | x), shape (B, latent)."""
        self.latent_shape(x.shape)
        h = self.fc1(to_network(x, self.channels).flatten(1)).relu()
        return self.fc21(h), self.fc22(h)


def load(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[DenseVAE, dict[str, Any]]:
    """Builds the prior of a state dictionary; returns it and a description.

    Raises:
        CheckpointError: The tensors are those of another variant, or the settings do not fit.
    """
    settings = read_settings(path, Settings, told)
    hidden, pixels = tensors["fc1.weight"].shape
    side = math.isqrt(pixels)
    shape = settings.shape or (1, side, side)
    if math.prod(shape) != pixels or not settings.std > 0:
        raise CheckpointError(
            f"{path}: has images of {pixels} numbers, which shape {list(shape)} does not fit, or "
            f"std {settings.std} is not > 0: set shape (channels, height, width) and std in "
            f"{path}.genprior.json"
        )
    prior = DenseVAE(tensors["fc21.weight"].shape[0], hidden, shape, settings.std)
    check_fit(path, tensors, prior.state_dict())
    prior.load_state_dict({key: value.float() for key, value in tensors.items()})
    about = {
        "format": "pytorch-examples-vae",
        "prior": f"VAE with {prior.latent} latent dimensions",
        "parameters": sum(p.numel() for p in prior.parameters()),
        "channels": shape[0],
        "size": list(shape[1:]),
        "image_range": [0, 1],
        "std": settings.std,
    }
    return prior, about
