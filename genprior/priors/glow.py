"""Normalising flow: an invertible map from images to latents z ~ N(0, I), with exact density.

This holds if height and width are multiples of 2^levels; see `Glow.log_prob` for other sizes.

    z = f(u),   log p(x) = log N(f(u); 0, I) + log |det df/du| + log |det du/dx|

with u = x - 1/2, or u = logit(p) for p = a + (1 - 2 a) x. The logit is continued linearly below
p = a / 2 and above p = 1 - a / 2, so that images out of range have a density too. A level
squeezes 2 x 2 pixels into channels, transforms them, and splits half of the channels off. These
are normally distributed, with a mean and a scale computed from the other half.

References:
    Density Estimation Using Real NVP, Dinh, Sohl-Dickstein and Bengio, 2017.
    Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma and Dhariwal, 2018.
    A Note on the Evaluation of Generative Models, Theis, van den Oord and Bethge, 2016
        (dequantisation, bits per dimension).

Differs from the authors' code:
    1. Log-scales are bounded by tanh, as in Real NVP; in Glow they are logarithms of sigmoids.
    2. "realnvp" uses actnorm instead of batch normalisation, so that images are independent. The
        channel halves alternate as in the paper. Networks have no residual blocks. There are
        four couplings before every squeeze, also before the last one; Real NVP has three before
        and three after. Real NVP splits off standard normal numbers; here they have a learned
        mean and scale, as in Glow.
    3. Large inputs of the networks are squashed, so that no latent overflows while decoding.
    4. Images of other sizes are padded by reflection; a colour prior also takes grey images.
    5. White noise can be added to the images in training, besides dequantisation.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genprior.core.random_streams import Noise
from genprior.priors.arguments import check_sizes
from genprior.priors.base import ActivationCheckpointing, Density, Encoder, Trainable
from genprior.priors.elbo import add_training_noise
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.flows import (
    ActNorm,
    Coupling,
    Invertible,
    Mixing,
    bounded,
    squash,
    squeeze,
    unsqueeze,
    zero_convolution,
)
from genprior.priors.nets.padding import pad_to_multiple
from genprior.priors.nets.reversible import Chain

LEVELS_OF_GREY = 255
CHECKERBOARDS = 4
LOG_STD_BOUND = 5.0
# `map` with a flow trained with noise, chosen on photos held aside from training.
MAP_WEIGHT, MAP_STEP_SIZE = 0.4, 0.05


class Glow(nn.Module, Encoder, Density, ActivationCheckpointing, Trainable):
    """Normalising flow prior, Glow or Real NVP, for images of any size.

    Arguments:
        channels: Image channels of the flow, 3 or 1.
        levels: Number of squeezes, >= 1; all levels but the last split channels off.
        depth: Couplings per level, >= 1.
        width: Features of the networks in the couplings.
        architecture: "glow" mixes channels by learned matrices; "realnvp" alternates the
            halves, and has 4 checkerboard couplings before each squeeze.
        logit: The parameter a, 0 or in [0.01, 0.5). Above 0 the flow models logits of the
            pixels, so that nearly all sampled values are in [0, 1] or slightly outside.
        recompute: Gradient checkpointing: store no activations and recompute them from the
            output in the backward pass. Saves memory on large images, takes 1.5 times as long.
        noise: Largest standard deviation of white noise that training adds to the images, each
            with its own level in [0, noise]. The log-density is then less curved, so that the
            search of `map` converges in fewer steps; samples are slightly noisy, and clean
            images need more bits per dimension.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        channels: int = 3,
        levels: int = 3,
        depth: int = 16,
        width: int = 96,
        architecture: Literal["glow", "realnvp"] = "glow",
        logit: float = 0.0,
        recompute: bool = False,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, levels=levels, depth=depth, width=width)
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise must be >= 0 and finite, got {noise}")
        if logit and not 0.01 <= logit < 0.5:
            raise ValueError(f"logit must be 0 or in [0.01, 0.5), got {logit}")
        if architecture not in ("glow", "realnvp"):
            raise ValueError(f"architecture must be 'glow' or 'realnvp', got {architecture!r}")
        self.channels, self.logit = channels, logit
        self.multiple = self.stride = 2**levels
        self.receptive_radius = _receptive_radius(
            levels, depth, CHECKERBOARDS if architecture == "realnvp" else 0
        )
        self._config = {
            "channels": channels,
            "levels": levels,
            "depth": depth,
            "width": width,
            "architecture": architecture,
            "logit": logit,
            "recompute": recompute,
            "noise": noise,
        }
        self.levels = nn.ModuleList()
        for level in range(levels):
            last = level == levels - 1
            self.levels.append(_Level(channels, depth, width, architecture, last, recompute))
            channels *= 2
        self.latent_maps = [(level.split_off, 2 ** (k + 1)) for k, level in enumerate(self.levels)]
        if noise:
            self.map_weight, self.map_step_size = MAP_WEIGHT, MAP_STEP_SIZE
        self.register_buffer("initialised", torch.zeros(()))
        self.checked = False

    @property
    def config(self) -> Mapping[str, Any]:
        return self._config

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"flow": self.parameters()}

    def with_checkpointing(self) -> "Glow":
        with torch.device("meta"):
            other = Glow(**{**self._config, "recompute": True})
        other.load_state_dict(self.state_dict(), assign=True)
        learns = any(p.requires_grad for p in self.parameters())
        return other.requires_grad_(learns).train(self.training)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of images (B, C, H, W) in [0, 1]; shape (B,).

        If height or width is no multiple of 2^levels, the image is padded by reflection and the
        log-density of the padded image is scaled by the share of pixels in the image. This is
        not the density of decoded images, and its integral is not exactly 1 (for 33 x 33 pixels
        and 3 levels it gives 0.065 bits per dimension too few). A colour prior evaluates a grey
        image as a colour image: up to a constant, this is the log-density given that the image
        is grey.
        """
        u, log_det = self._pixels(self._extend(x))
        z, flow_log_det = self._forward(u)
        size = z.shape[1]
        log_normal = -0.5 * z.square().sum(dim=1) - 0.5 * size * math.log(2 * math.pi)
        share = x.shape[-2:].numel() / u.shape[-2:].numel()
        return share * (log_normal + log_det + flow_log_det)

    def bits_per_dim(self, x: Tensor, noise: Noise) -> Tensor:
        """Returns an upper bound on the bits per dimension of 8-bit images, shape (B,).

        The bound uses uniform dequantisation. It is approximate if height or width is no
        multiple of 2^levels: see `log_prob`.

        Arguments:
            x: Images whose values are multiples of 1/255.
            noise: Random numbers.
        """
        x = to_network(x, self.channels)
        nats = -self.log_prob(x + (noise.uniform(x) - 0.5) / LEVELS_OF_GREY)
        return (nats / x[0].numel() + math.log(LEVELS_OF_GREY)) / math.log(2)

    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        if not self.checked:  # once, since it synchronises with the device
            self.prepare(x, noise)
        x = add_training_noise(x, self._config["noise"], noise)
        return {"flow": self.bits_per_dim(x, noise).mean()}

    @torch.no_grad()
    def prepare(self, x: Tensor, noise: Noise) -> None:
        """Initialises every actnorm from a batch of images, unless that was done before."""
        if not self.initialised:
            for layer in self.modules():
                if isinstance(layer, ActNorm):
                    layer.pending = True
            self.bits_per_dim(x, noise)
            self.initialised.fill_(1)
        self.checked = True

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        batch, _, height, width = image_shape
        height, width = (n + -n % self.multiple for n in (height, width))
        return batch, self.channels * height * width

    def encode(self, x: Tensor) -> Tensor:
        return self._forward(self._pixels(self._extend(x))[0])[0]

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        shape = torch.Size((image_shape[0], self.channels, *image_shape[2:]))
        _, count = self.latent_shape(shape)
        height, width = (n + -n % self.multiple for n in shape[2:])
        x = self._image(self._inverse(z.reshape(len(z), count), height, width))
        return from_network(x[..., : shape[2], : shape[3]], image_shape[1])

    def _forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Returns latents (B, n), in the order of splitting, and log |det dz/du|."""
        parts, log_det = [], u.new_zeros(len(u))
        for level in self.levels:
            u, part, level_log_det = level(u)
            parts.append(part.flatten(1))
            log_det = log_det + level_log_det
        return torch.cat(parts, dim=1), log_det

    def _inverse(self, z: Tensor, height: int, width: int) -> Tensor:
        shapes = []
        for level in self.levels:
            height, width = height // 2, width // 2
            shapes.append((level.split_off, height, width))
        parts = z.split([math.prod(shape) for shape in shapes], dim=1)
        h = None
        for level, part, shape in reversed(list(zip(self.levels, parts, shapes, strict=True))):
            h = level.inverse(h, part.reshape(-1, *shape))
        return h

    def _pixels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns u of images x, and log |det du/dx|."""
        if not self.logit:
            return x - 0.5, x.new_zeros(len(x))
        a, d = self.logit, self.logit / 2
        p = a + (1 - 2 * a) * x
        q = p.clamp(d, 1 - d)
        slope = math.log(1 - 2 * a) - q.log() - (1 - q).log()
        u = q.log() - (1 - q).log() + (p - q) / (d * (1 - d))
        return u, slope.flatten(1).sum(dim=1)

    def _image(self, u: Tensor) -> Tensor:
        """Returns the images of u: the inverse of `_pixels`."""
        if not self.logit:
            return u + 0.5
        a, d = self.logit, self.logit / 2
        end = math.log((1 - d) / d)
        v = u.clamp(-end, end)
        p = v.sigmoid() + (u - v) * d * (1 - d)
        return (p - a) / (1 - 2 * a)

    def _extend(self, x: Tensor) -> Tensor:
        return pad_to_multiple(to_network(x, self.channels), self.multiple)[0]


def _receptive_radius(levels: int, depth: int, checkerboards: int) -> int:
    """Returns the radius in pixels of two 3x3 convolutions per coupling and one per split."""
    squeezed = sum(2 ** (k + 1) * (2 * depth + 1) for k in range(levels))
    before = sum(2**k * 2 * checkerboards for k in range(levels))
    return squeezed + before - 2**levels  # no split at the last level


class _Level(nn.Module):
    """One level of the flow: a squeeze, couplings, and the Gaussian of the channels split off."""

    def __init__(
        self, channels: int, depth: int, width: int, kind: str, last: bool, recompute: bool
    ) -> None:
        super().__init__()
        before: list[Invertible] = []
        for k in range(CHECKERBOARDS if kind == "realnvp" else 0):
            colour = "white" if k % 2 else "black"
            before += [ActNorm(channels), Coupling(channels, width, colour)]
        after: list[Invertible] = []
        for k in range(depth):
            after.append(ActNorm(4 * channels))
            if kind == "glow":
                after.append(Mixing(4 * channels))
            half = "first" if kind == "realnvp" and k % 2 else "last"
            after.append(Coupling(4 * channels, width, half))
        self.before, self.after = Chain(before, recompute), Chain(after, recompute)
        self.split_off = 4 * channels if last else 2 * channels
        self.law = (
            nn.Parameter(torch.zeros(2 * self.split_off, 1, 1))
            if last
            else zero_convolution(2 * channels, 2 * self.split_off)
        )

    def forward(self, u: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Returns the channels kept, those split off (standard normal), and log |det|."""
        u, before = self.before(u)
        h, after = self.after(squeeze(u))
        kept, part = (None, h) if h.shape[1] == self.split_off else h.chunk(2, dim=1)
        mean, log_std = self._mean_and_log_std(kept, part)
        split = -log_std.expand(part.shape).flatten(1).sum(dim=1)
        return kept, (part - mean) * (-log_std).exp(), before + after + split

    def inverse(self, kept: Tensor | None, z: Tensor) -> Tensor:
        mean, log_std = self._mean_and_log_std(kept, z)
        part = mean + log_std.exp() * z
        h = part if kept is None else torch.cat((kept, part), dim=1)
        return self.before.inverse(unsqueeze(self.after.inverse(h)))

    def _mean_and_log_std(self, kept: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        moments = self.law[None] if kept is None else self.law(squash(kept)).to(like.dtype)
        mean, log_std = moments.chunk(2, dim=1)
        return mean, bounded(log_std, LOG_STD_BOUND)
