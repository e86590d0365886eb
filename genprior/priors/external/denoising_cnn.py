"""Denoisers that are a chain of 3 x 3 convolutions: DnCNN, FDnCNN, FFDNet and bias-free ones.

    DnCNN    D(x) = x - F(x)                       for one noise level, or blind
    FDnCNN   D(x, sigma) = F(x, sigma)             sigma as a further image
    FFDNet   D(x, sigma) = F(x, sigma)             on four sub-images of half the resolution

    BF-CNN, BF-DnCNN   D(x) = x - F(x)             blind, without biases: D(r x) = r D(x), r > 0

in the files of KAIR and of similar programs: a state dictionary of numbered convolutions and
batch normalisations, with a ReLU after all but the last. The input and output channels determine
the kind. A DnCNN for one noise level serves the others by `single_level`.

References:
    Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising, Zhang et al.,
        2017 (DnCNN).
    FFDNet: Toward a Fast and Flexible Solution for CNN based Image Denoising, Zhang, Zuo and
        Zhang, 2018 (FFDNet, FDnCNN).
    Robust and Interpretable Blind Image Denoising via Bias-Free Convolutional Neural Networks,
        Mohan et al., 2020.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, cat, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from genprior.core.errors import CheckpointError
from genprior.core.linalg import per_image
from genprior.priors.base import Denoiser
from genprior.priors.external.single_level import Settings, check_level, denoise_any
from genprior.priors.external.weight_files import NoSettings, check_fit, read_settings
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

Kind = Literal["residual", "noise-map", "subsampled"]
# A file with more layers is not such a network.
MAX_LAYERS = 1000
# Added to the standard deviations of a BF-DnCNN.
BF_EPSILON = 1e-5
# Names of published files: dncnn_25.pth is for noise of 25/255.
LEVEL_IN_NAME = re.compile(r"dncnn_(\d{1,2})")


class DenoisingCNN(nn.Module, Denoiser):
    """Denoiser prior from a chain of 3 x 3 convolutions.

    Arguments:
        layers: The convolutions and what is between them.
        channels: Image channels.
        kind: "residual" (DnCNN), "noise-map" (FDnCNN) or "subsampled" (FFDNet).
        noise_level: For "residual", the only noise level of the training, > 0, in units of
            [0, 1]; None for a blind network.
    """

    def __init__(
        self, layers: nn.Sequential, channels: int, kind: Kind, noise_level: float | None = None
    ) -> None:
        super().__init__()
        self.layers, self.channels, self.kind = layers, channels, kind
        self.noise_level = noise_level
        depth = sum(isinstance(layer, nn.Conv2d) for layer in layers)
        self.stride = 2 if kind == "subsampled" else 1
        if noise_level is None:  # else the weight w depends on the whole image
            self.receptive_radius = self.stride * depth + self.stride - 1

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        u = to_network(x, self.channels)
        level = per_image(sigma, u)
        if self.kind == "noise-map":
            u = self.layers(cat((u, level.expand_as(u[:, :1])), dim=1))
        elif self.kind == "subsampled":
            padded, crop = pad_to_multiple(u, 2)
            parts = pixel_unshuffle(padded, 2)
            parts = self.layers(cat((parts, level.expand_as(parts[:, :1])), dim=1))
            u = pixel_shuffle(parts, 2)[crop]
        elif self.noise_level is None:
            u = u - self.layers(u)
        else:
            u = denoise_any(self.layers, u, level, self.noise_level)
        return from_network(u, x.shape[1])


def load(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[DenoisingCNN, dict[str, Any]]:
    """Builds the prior of a state dictionary; returns it and a description.

    Raises:
        CheckpointError: The tensors are not those of such a chain, or the settings do not fit.
    """
    own = {re.sub(r"^[A-Za-z]\w*\.", "", key): value for key, value in tensors.items()}
    layers = _layers(path, own)
    check_fit(path, own, layers.state_dict())
    layers.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in own.items()})
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    inputs, outputs = convolutions[0].in_channels, convolutions[-1].out_channels
    kinds: dict[tuple[int, int], tuple[Kind, int]] = {}
    for channels in (1, 3):
        kinds[channels, channels] = "residual", channels
        kinds[channels + 1, channels] = "noise-map", channels
        kinds[4 * channels + 1, 4 * channels] = "subsampled", channels
    if (inputs, outputs) not in kinds:
        raise CheckpointError(
            f"{path}: a chain of convolutions from {inputs} to {outputs} channels is no DnCNN, "
            f"FDnCNN or FFDNet of grey or colour images"
        )
    kind, channels = kinds[inputs, outputs]
    level = _noise_level(path, kind, told)
    prior = DenoisingCNN(layers, channels, kind, level)
    about = {
        "format": "convolutional-denoiser",
        "prior": {"residual": "DnCNN", "noise-map": "FDnCNN", "subsampled": "FFDNet"}[kind],
        "parameters": sum(p.numel() for p in layers.parameters()),
        "layers": len(convolutions),
        "bias_free": all(layer.bias is None for layer in convolutions),
        "channels": channels,
        "image_range": [0, 1],
        "noise_levels": "given to the network" if kind != "residual" else level or "blind",
        "receptive_radius": prior.receptive_radius,
    }
    return prior, about


def load_bias_free(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[DenoisingCNN, dict[str, Any]]:
    """Builds a blind network without biases; results and errors as of `load`.

    Its normalisations are divisions by running standard deviations, which the preceding
    convolutions absorb.
    """
    read_settings(path, NoSettings, told)
    try:
        kernels, scales = _bf_cnn(tensors) if "conv_layers.0.weight" in tensors else (
            _bf_dncnn(tensors))
        kernels = [kernel if scale is None else kernel * scale.reshape(-1, 1, 1, 1)
                   for kernel, scale in zip(kernels, scales, strict=True)]
        layers: list[nn.Module] = []
        for kernel in kernels:
            outputs, inputs, rows, columns = kernel.shape
            if (rows, columns) != (3, 3):
                raise ValueError(f"it has a kernel of {rows} x {columns}")
            layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layer.load_state_dict({"weight": kernel})
            layers += [layer, nn.ReLU()]
        if kernels[0].shape[1] != kernels[-1].shape[0] or kernels[0].shape[1] not in (1, 3):
            raise ValueError("it does not map grey or colour images to such images")
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: is no bias-free chain of convolutions ({' '.join(str(error).split())}): the "
            f"network is another one"
        ) from error
    network = nn.Sequential(*layers[:-1])
    channels = kernels[0].shape[1]
    prior = DenoisingCNN(network, channels, "residual")
    about = {
        "format": "bf-cnn" if "conv_layers.0.weight" in tensors else "bf-dncnn",
        "prior": "bias-free denoiser",
        "parameters": sum(p.numel() for p in network.parameters()),
        "layers": len(kernels),
        "bias_free": True,
        "channels": channels,
        "image_range": [0, 1],
        "noise_levels": "blind",
        "receptive_radius": prior.receptive_radius,
    }
    return prior, about


def _bf_cnn(tensors: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Returns kernels and output scales of a BF-CNN: running_sd belongs to all inner layers."""
    kernels = [key for key in tensors if key.startswith("conv_layers.")]
    deviations = [key for key in tensors if key.startswith("running_sd.")]
    gains = [key for key in tensors if key.startswith("gammas.")]
    count = len(kernels)
    expected = {f"conv_layers.{k}.weight" for k in range(count)}
    expected |= {f"running_sd.{k}" for k in range(count - 2)}
    expected |= {f"gammas.{k}" for k in range(count - 2)} if gains else set()
    if expected != tensors.keys() or len(deviations) != count - 2:
        raise ValueError(f"its tensors are not those of {count} layers")
    scales = [1 / tensors[f"running_sd.{k}"].float() for k in range(count - 2)]
    if gains:
        scales = [tensors[f"gammas.{k}"].float() * scale for k, scale in enumerate(scales)]
    return [tensors[f"conv_layers.{k}.weight"].float() for k in range(count)], [
        None, *scales, None]


def _bf_dncnn(tensors: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Returns kernels and output scales of a BF-DnCNN; its normalisation has no mean or bias."""
    count = sum(key.startswith("hidden_layer_list.") for key in tensors)
    kernels = [f"hidden_layer_list.{k}.weight" for k in range(count)]
    kernels = ["first_layer.weight", *kernels, "last_layer.weight"]
    norms = {f"bn_layer_list.{k}.{name}" for k in range(count) for name in
             ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    extra = sorted(tensors.keys() - norms - {*kernels})
    if extra:
        raise ValueError(f"it also has {extra[0]}")
    scales = [
        tensors[f"bn_layer_list.{k}.weight"].float()
        / (tensors[f"bn_layer_list.{k}.running_var"].float().sqrt() + BF_EPSILON)
        for k in range(count)
    ]
    return [tensors[key].float() for key in kernels], [None, *scales, None]


def _layers(path: Path, tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """Returns the layers whose state dictionary has these names and shapes."""
    names = {key.split(".")[0] for key in tensors}
    if not all(name.isdecimal() and int(name) < MAX_LAYERS for name in names):
        raise CheckpointError(f"{path}: its layers are not numbered up to {MAX_LAYERS}")
    numbers = sorted(map(int, names))
    found: dict[int, nn.Module] = {}
    for number in numbers:
        weight = tensors.get(f"{number}.weight")
        bias = f"{number}.bias" in tensors
        if weight is None or weight.ndim not in (1, 4) or weight.shape[2:] not in ((), (3, 3)):
            raise CheckpointError(
                f"{path}: layer {number} is neither a 3 x 3 convolution nor a normalisation: the "
                f"network is another one"
            )
        if weight.ndim == 1:
            found[number] = nn.BatchNorm2d(len(weight))
        else:
            outputs, inputs = weight.shape[:2]
            found[number] = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    layers: list[nn.Module] = [nn.ReLU() for _ in range(numbers[-1] + 1)]
    for number, layer in found.items():
        layers[number] = layer
    return nn.Sequential(*layers)


def _noise_level(path: Path, kind: Kind, told: Mapping[str, Any]) -> float | None:
    settings = read_settings(path, Settings, told)
    if kind != "residual" or settings.blind:
        return None
    match = LEVEL_IN_NAME.fullmatch(path.stem)
    level = settings.noise_level
    if level is None and match and settings.blind is None:
        level = int(match[1]) / 255
    return check_level(path, level)
