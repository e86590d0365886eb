"""StyleGAN2 generator in the files of rosinality's stylegan2-pytorch (.pt, g_ema and latent_avg).

    w = f(z),   h <- lrelu(d (C * (s h)) + strength n + b),   s = affine(w),
    image = sum over resolutions of to_rgb(h), upsampled with the filter [1, 3, 3, 1]

The latents of the prior are standard normal and stand for styles, not for z: before its last
rectifier, f(z) is close to Gaussian, so that

    w = lrelu(m + C^1/2 v),   w <- avg + psi (w - avg),   v ~ N(0, I)

with mean m and covariance C of 10,000 mapped z. In the space W all layers have the same v, in W+
each layer has its own. The noise maps n are those of the file, or 0.

References:
    Analyzing and Improving the Image Quality of StyleGAN, Karras et al., 2020.
    Image2StyleGAN, Abdal, Qin and Wonka, 2019 (W+).
    PULSE, Menon et al., 2020; Improved StyleGAN Embedding, Zhu et al., 2020 (Gaussian styles).

Differs from the authors' code:
    Noise maps are fixed, so that the image is a function of the latents.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, pad

from genprior.core.errors import CheckpointError
from genprior.priors.base import Decoder
from genprior.priors.external.weight_files import check_fit, read_settings
from genprior.priors.nets.channels import from_network

SLOPE, GAIN, MAPPING_RATE, EPSILON = 0.2, 2**0.5, 0.01, 1e-8
MAPPED, MAX_BLOCKS = 10_000, 24
Space = Literal["w", "w+", "z"]


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What a file does not show, in FILE.genprior.json.

    `space` is that of the latents: "w", "w+" or "z". `truncation` is psi in (0, 1]; 1 is none.
    """

    space: Space = "w"
    truncation: float = 1.0


class EqualLinear(nn.Module):
    """Linear layer whose weights are scaled to unit variance at run time.

    Arguments:
        inputs, outputs: Features.
        rate: Factor of weights and biases, the learning rate of the layer.
    """

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.rate = rate * inputs**-0.5, rate

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.scale, self.bias * self.rate)


class Filter(nn.Module):
    """The blur filter of an up-sampling, as a buffer that the file holds.

    Arguments:
        size: Taps per axis.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.zeros(size, size))

    def forward(self, x: Tensor, before: int, after: int) -> Tensor:
        depth = x.shape[1]
        kernel = self.kernel.flip(0, 1).to(x).expand(depth, 1, -1, -1)
        return conv2d(pad(x, (before, after, before, after)), kernel, groups=depth)


class ModulatedConvolution(nn.Module):
    """Convolution whose inputs are scaled by a style, and its weights normalised.

    Arguments:
        inputs, outputs: Channels.
        kernel: Side of the kernel.
        style: Dimension of the style.
        taps: Side of the blur filter if the resolution is doubled, else 0.
        normalised: Whether the outputs are normalised.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style: int, taps: int = 0,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(style, inputs)
        self.scale, self.normalised, self.side = (inputs * kernel**2) ** -0.5, normalised, kernel
        if taps:
            self.blur = Filter(taps)
        self.taps = taps

    def forward(self, h: Tensor, w: Tensor) -> Tensor:
        s, weight = self.modulation(w), self.scale * self.weight[0]
        h = h * s[:, :, None, None]
        if self.taps:
            y = conv_transpose2d(h, weight.transpose(0, 1), stride=2)
            margin = self.taps - 2 - (self.side - 1)
            y = self.blur(y, (margin + 1) // 2 + 1, margin // 2 + 1)
        else:
            y = conv2d(h, weight, padding=self.side // 2)
        if not self.normalised:
            return y
        power = (weight.square().sum(dim=(2, 3)) * s[:, None].square()).sum(dim=2)
        return y * (power + EPSILON).rsqrt()[:, :, None, None]


class Noise(nn.Module):
    """Strength of the noise maps of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class Bias(nn.Module):
    """Bias and rectifier of a layer.

    Arguments:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor) -> Tensor:
        return GAIN * leaky_relu(h + self.bias[:, None, None], SLOPE)


class StyledConvolution(nn.Module):
    """Modulated convolution, noise, bias and rectifier; arguments of `ModulatedConvolution`."""

    def __init__(self, inputs: int, outputs: int, style: int, taps: int = 0) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(inputs, outputs, 3, style, taps)
        self.noise, self.activate = Noise(), Bias(outputs)

    def forward(self, h: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        return self.activate(self.conv(h, w) + self.noise.weight * noise)


class ToRGB(nn.Module):
    """Convolution to an image, added to the doubled image of the preceding resolution.

    Arguments:
        inputs, outputs: Channels.
        style: Dimension of the style.
        taps: Side of the filter, 0 for the first resolution.
    """

    def __init__(self, inputs: int, outputs: int, style: int, taps: int = 0) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(inputs, outputs, 1, style, normalised=False)
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        if taps:
            self.upsample = Filter(taps)
        self.taps = taps

    def forward(self, h: Tensor, w: Tensor, image: Tensor | None = None) -> Tensor:
        rgb = self.conv(h, w) + self.bias
        if image is None:
            return rgb
        spread = image.new_zeros(*image.shape[:2], 2 * image.shape[2], 2 * image.shape[3])
        spread[:, :, ::2, ::2] = image
        margin = self.taps - 2
        return rgb + self.upsample(spread, (margin + 1) // 2 + 1, margin // 2)


class Constant(nn.Module):
    """Constant input of the generator; argument: its shape."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.zeros(shape))


class Generator(nn.Module):
    """The generator of a state dictionary; only names and shapes are used.

    Raises:
        KeyError: A tensor that shows the structure is missing.
        ValueError: There are too many blocks.
    """

    def __init__(self, shape: Mapping[str, torch.Size]) -> None:
        super().__init__()
        depth = _count(shape, "style.")
        dim = shape["style.1.weight"][0]
        self.style = nn.ModuleDict({
            str(k): EqualLinear(dim, dim, MAPPING_RATE) for k in range(1, depth + 1)
        })
        self.input = Constant(shape["input.input"])
        outputs, inputs = shape["conv1.conv.weight"][1:3]
        depth_rgb = shape["to_rgb1.conv.weight"][1]
        self.conv1 = StyledConvolution(inputs, outputs, dim)
        self.to_rgb1 = ToRGB(outputs, depth_rgb, dim)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for k in range(_count(shape, "convs.")):
            outputs, inputs = shape[f"convs.{k}.conv.weight"][1:3]
            taps = 0 if k % 2 else shape[f"convs.{k}.conv.blur.kernel"][0]
            self.convs.append(StyledConvolution(inputs, outputs, dim, taps))
        for k in range(len(self.convs) // 2):
            inputs = shape[f"to_rgbs.{k}.conv.weight"][2]
            taps = shape[f"to_rgbs.{k}.upsample.kernel"][0]
            self.to_rgbs.append(ToRGB(inputs, depth_rgb, dim, taps))
        rows, columns = shape["input.input"][2:]
        self.noises = nn.Module()
        for k in range(len(self.convs) + 1):
            level = (k + 1) // 2
            maps = torch.zeros(1, 1, rows << level, columns << level)
            self.noises.register_buffer(f"noise_{k}", maps)
        self.dim, self.channels = dim, depth_rgb
        self.size = rows << len(self.to_rgbs), columns << len(self.to_rgbs)
        self.styles = 2 * len(self.to_rgbs) + 2

    def mapped(self, z: Tensor) -> Tensor:
        """Returns f(z) before its last rectifier, both (B, dim)."""
        h = z * (z.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()
        for layer in list(self.style.values())[:-1]:
            h = rectified(layer(h))
        return self.style[str(len(self.style))](h)

    def forward(self, w: Tensor) -> Tensor:
        """Returns images of styles w (B, styles, dim), in about [-1, 1]."""
        n = [getattr(self.noises, f"noise_{k}") for k in range(len(self.convs) + 1)]
        h = self.conv1(self.input.input.expand(len(w), -1, -1, -1), w[:, 0], n[0])
        image = self.to_rgb1(h, w[:, 1])
        for k, to_rgb in enumerate(self.to_rgbs):
            h = self.convs[2 * k](h, w[:, 2 * k + 1], n[2 * k + 1])
            h = self.convs[2 * k + 1](h, w[:, 2 * k + 2], n[2 * k + 2])
            image = to_rgb(h, w[:, 2 * k + 3], image)
        return image


def rectified(h: Tensor) -> Tensor:
    """Returns the scaled leaky rectifier of h."""
    return GAIN * leaky_relu(h, SLOPE)


def _count(shape: Mapping[str, torch.Size], prefix: str) -> int:
    numbers = {key.split(".")[1] for key in shape if key.startswith(prefix)}
    if not numbers or not all(n.isdecimal() and int(n) <= MAX_BLOCKS for n in numbers):
        raise ValueError(f"its {prefix[:-1]} are not numbered up to {MAX_BLOCKS}")
    return len(numbers)


class StyleGAN2(nn.Module, Decoder):
    """Decoder prior from a StyleGAN2 generator.

    Arguments:
        generator: The generator.
        space: Space of the latents: "w", "w+", or "z".
        truncation: psi in (0, 1].
        average: Mean style, shape (dim,); None computes it.
    """

    def __init__(
        self, generator: Generator, space: Space = "w", truncation: float = 1.0,
        average: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.generator, self.space, self.truncation = generator, space, truncation
        self.channels, self.size = generator.channels, generator.size
        random = torch.Generator().manual_seed(0)
        z = torch.randn(MAPPED, generator.dim, generator=random)
        with torch.no_grad():
            h = generator.mapped(z)
            values, vectors = torch.linalg.eigh(h.double().T.cov())
            root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
            mean = rectified(h).mean(dim=0) if average is None else average
        self.register_buffer("mean", h.mean(dim=0))
        self.register_buffer("root", root.to(h))
        self.register_buffer("average", mean.float().flatten())

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        if tuple(image_shape[2:]) != self.size:
            raise ValueError(
                f"this prior takes images of {self.size[0]} x {self.size[1]} pixels (height x "
                f"width), got {image_shape[2]} x {image_shape[3]}: crop or resize the images"
            )
        count = self.generator.styles if self.space == "w+" else 1
        return image_shape[0], count * self.generator.dim

    def styles(self, v: Tensor) -> Tensor:
        """Returns truncated styles (B, styles, dim) of latents v (B, dim) or (B, styles dim)."""
        v = v.reshape(-1, self.generator.dim)
        h = self.generator.mapped(v) if self.space == "z" else self.mean + v @ self.root
        w = self.average + self.truncation * (rectified(h) - self.average)
        if self.space == "w+":
            return w.unflatten(0, (-1, self.generator.styles))
        return w[:, None].expand(-1, self.generator.styles, -1)

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        self.latent_shape(image_shape)
        return from_network((self.generator(self.styles(z)) + 1) / 2, image_shape[1])


def load(
    path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> tuple[StyleGAN2, dict[str, Any]]:
    """Builds the prior of a state dictionary; returns it and a description.

    Raises:
        CheckpointError: The tensors are those of another variant, or the settings do not fit.
    """
    settings = read_settings(path, Settings, told)
    if not 0 < settings.truncation <= 1:
        raise CheckpointError(
            f"{path}: truncation must be in (0, 1], got {settings.truncation}"
        )
    average = tensors.get("latent_avg")
    own = {key: value.float() for key, value in tensors.items() if key != "latent_avg"}
    try:
        generator = Generator({key: value.shape for key, value in own.items()})
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path}: cannot be built as a StyleGAN2 generator ({error}): it is another variant"
        ) from error
    if not any(key.startswith("noises.") for key in own):
        own |= {f"noises.{key}": value for key, value in generator.noises.state_dict().items()}
    check_fit(path, own, generator.state_dict())
    generator.load_state_dict(own)
    if average is not None and average.numel() != generator.dim:
        raise CheckpointError(f"{path}: latent_avg has not {generator.dim} numbers")
    prior = StyleGAN2(generator, settings.space, settings.truncation, average)
    about = {
        "format": "stylegan2",
        "prior": f"StyleGAN2 generator with {generator.dim} style dimensions",
        "parameters": sum(p.numel() for p in generator.parameters()),
        "channels": prior.channels,
        "size": list(prior.size),
        "image_range": [-1, 1],
        "styles": generator.styles,
        "space": settings.space,
        "truncation": settings.truncation,
        "latent_avg": "in the file" if average is not None else f"mean of {MAPPED} styles",
        "latents": math.prod(prior.latent_shape(torch.Size((1, prior.channels, *prior.size)))),
    }
    return prior, about
