"""Hierarchical variational autoencoder (HVAE): groups of latents from coarse to fine.

    z_l = mu_p(s_l) + s_p(s_l) e_l,   e_l ~ N(0, I),   s_{l+1} = f_l(s_l, z_l)
    x ~ N(G(s_L), s^2 I)

    q(e_l | x, z_<l) = N(d_l, exp(r_l)^2),   (d_l, r_l) from s_l and features of x

The posterior is residual: in units of the prior it is N(d, e^2r), and its KL divergence has the
closed form of a plain variational autoencoder. The latents are all e_l, coarse ones first.

References:
    Ladder Variational Autoencoders, Sonderby et al., 2016 (top-down inference).
    NVAE: A Deep Hierarchical Variational Autoencoder, Vahdat and Kautz, 2020 (residual posterior).
    Inverse Problem Regularization with Hierarchical Variational Autoencoders, Prost et al., 2023
        (the temperature).

Differs from the authors' code:
    1. Plain residual blocks without normalisation; a Gaussian likelihood with one learned
        standard deviation.
    2. The encoder can be trained on noisy images, because solvers apply it to noisy images.
    3. The residual mean is in units of the prior's standard deviation; in NVAE it is not.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.random_streams import Noise
from genprior.priors.arguments import check_sizes
from genprior.priors.base import Trainable, Variational
from genprior.priors.elbo import (
    add_training_noise,
    divergence,
    importance_bound,
    log_normal,
    sampled_divergence,
)
from genprior.priors.nets.blocks import Residual
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.flows import bounded, zero_convolution
from genprior.priors.nets.padding import pad_to_multiple

SMALLEST_STD = 1 / 255
LOG_RATIO = 4.0
# The standard deviation of the likelihood before training. Its logarithm changes by about the
# learning rate in each step, so it must not begin far above its final value.
FIRST_STD = 0.02
# Chooses e of a group from (number of the group, d, r); d and r are None without an image.
Pick = Callable[[int, Tensor | None, Tensor | None], Tensor]


class HVAE(nn.Module, Variational, Trainable):
    """Hierarchical variational autoencoder for images of any size.

    Arguments:
        channels: Image channels of the network, 3 or 1.
        latent: Channels of each group of latents.
        widths: Features per level; each level but the first halves the resolution.
        groups: Groups of latents per level, the finest level first.
        blocks: Residual blocks before each group, and per level of the encoder.
        beta: Weight of the KL divergence in the loss, > 0.
        noise: Maximum standard deviation of the noise added to the input of the encoder in
            training, in units of [0, 1], >= 0.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 8,
        widths: Sequence[int] = (32, 64, 128, 128),
        groups: Sequence[int] = (0, 2, 2, 2),
        blocks: int = 1,
        beta: float = 1.0,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, latent=latent, widths=widths, blocks=blocks)
        if len(groups) != len(widths) or min(groups) < 0 or not sum(groups):
            raise ValueError(
                f"groups must hold a number >= 0 for each of the {len(widths)} levels and not "
                f"only zeros, got {list(groups)}"
            )
        check_sizes(groups=groups)
        if not beta > 0:
            raise ValueError(f"beta must be > 0, got {beta}")
        if not noise >= 0:
            raise ValueError(f"noise must be >= 0, got {noise}")
        self._config = {
            "channels": channels,
            "latent": latent,
            "widths": list(widths),
            "groups": list(groups),
            "blocks": blocks,
            "beta": beta,
            "noise": noise,
        }
        self.channels, self.latent, self.beta = channels, latent, beta
        self.multiple = self.stride = 2 ** (len(widths) - 1)
        self.receptive_radius = _receptive_radius(groups, blocks)
        pairs = list(zip(widths[:-1], widths[1:], strict=True))

        def stack(width: int) -> nn.Sequential:
            return nn.Sequential(*(Residual(width) for _ in range(blocks)))

        self.head = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(stack(width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.start = nn.Parameter(torch.zeros(widths[-1], 1, 1))
        self.levels = nn.ModuleList(
            nn.ModuleList(_Group(width, latent, stack(width)) for _ in range(count))
            for width, count in zip(widths, groups, strict=True)
        )
        sites = [2**level for level, count in enumerate(groups) for _ in range(count)]
        self.latent_maps = [(latent, f) for f in reversed(sites)]
        self.last = stack(widths[0])
        self.tail = nn.Conv2d(widths[0], channels, 3, padding=1)
        self.log_std = nn.Parameter(torch.tensor(math.log(FIRST_STD)))

    @property
    def config(self) -> Mapping[str, Any]:
        return self._config

    @property
    def decoder_std(self) -> Tensor:
        std = self.log_std.exp()  # its gradient is not cut off below the floor
        return std + (std.clamp(min=SMALLEST_STD) - std).detach()

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"hvae": self.parameters()}

    def group_shapes(self, image_shape: torch.Size) -> list[tuple[int, int, int]]:
        """Returns the shape (latent, rows, columns) of each latent group, the coarsest first."""
        rows, columns = (-(-n // self.multiple) * self.multiple for n in image_shape[2:])
        return [
            (self.latent, rows >> level, columns >> level)
            for level in reversed(range(len(self.levels)))
            for _ in self.levels[level]
        ]

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return image_shape[0], sum(map(math.prod, self.group_shapes(image_shape)))

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        shapes = self.group_shapes(image_shape)
        parts = z.split([math.prod(shape) for shape in shapes], dim=1)
        x = self._top_down(lambda k, d, r: parts[k].reshape(-1, *shapes[k]), None, image_shape, z)
        return from_network(x, image_shape[1])

    def encode(self, x: Tensor) -> Tensor:
        means: list[Tensor] = []

        def pick(k: int, d: Tensor, r: Tensor) -> Tensor:
            means.append(d.flatten(1))
            return d

        self._top_down(pick, self._features(x), x.shape, x)
        return torch.cat(means, dim=1)

    def reconstruct(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        shrinkage = 1 / temperature**2 - 1
        x_hat = self._top_down(
            lambda k, d, r: d / (1 + shrinkage * (2 * r).exp()), self._features(x), x.shape, x
        )
        return from_network(x_hat, x.shape[1])

    def resample(
        self, z: Tensor, image_shape: torch.Size, fixed: int, generator: torch.Generator
    ) -> Tensor:
        """Keeps the first groups of latents z and draws the others from the prior.

        Arguments:
            z: Latents, shape (B, n).
            image_shape: Shape of the images.
            fixed: Number of groups that are kept, the coarsest ones.
            generator: Random numbers, on the CPU.
        """
        kept = sum(math.prod(shape) for shape in self.group_shapes(image_shape)[:fixed])
        fresh = torch.randn(len(z), z.shape[1] - kept, generator=generator).to(z)
        return torch.cat((z[:, :kept], fresh), dim=1)

    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        noisy = add_training_noise(x, self._config["noise"], noise)
        x_hat, terms = self._sample(noisy, noise, lambda e, n, d, r: divergence(d, r))
        log_p = log_normal(to_network(x, self.channels), x_hat, self.decoder_std)
        numbers = self.channels * x.shape[-2:].numel()
        return {"hvae": (self.beta * sum(terms) - log_p).mean() / numbers}

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, samples: int, noise: Noise) -> Tensor:
        """Returns the importance-weighted bound on log p(x) in nats, shape (B,).

        It is the bound of Burda et al., whose mean increases with the number of samples.

        Arguments:
            x: Images.
            samples: Importance samples per image, >= 1.
            noise: Random numbers.
        """
        x = to_network(x, self.channels)

        def log_weight() -> Tensor:
            x_hat, terms = self._sample(
                x, noise, lambda e, n, d, r: sampled_divergence(e, n, r)
            )
            return log_normal(x, x_hat, self.decoder_std) - sum(terms)

        return importance_bound(log_weight, samples)

    def _sample(
        self, x: Tensor, noise: Noise, divergence_of: Callable[..., Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns images decoded from posterior samples, and the KL divergence of every group."""
        terms: list[Tensor] = []

        def pick(k: int, d: Tensor, r: Tensor) -> Tensor:
            n = noise.normal(d)
            e = d + r.exp() * n
            terms.append(divergence_of(e, n, d, r))
            return e

        return self._top_down(pick, self._features(x), x.shape, x), terms

    def _features(self, x: Tensor) -> list[Tensor]:
        """Returns features of images per level, the finest first."""
        x = pad_to_multiple(to_network(x, self.channels), self.multiple)[0]
        h, features = self.head(2 * x - 1), []
        for level, stack in enumerate(self.encoder):
            h = stack(h if level == 0 else self.down[level - 1](h))
            features.append(h)
        return features

    def _top_down(
        self, pick: Pick, features: list[Tensor] | None, image_shape: torch.Size, like: Tensor
    ) -> Tensor:
        """Returns the image with the channels of the network, for the e chosen by `pick`."""
        rows, columns = (-(-n // self.multiple) for n in image_shape[2:])
        s = self.start.to(like.dtype).expand(image_shape[0], -1, rows, columns)
        number = 0
        for level in reversed(range(len(self.levels))):
            for group in self.levels[level]:
                d, r = (None, None) if features is None else group.posterior(s, features[level])
                s = group(s, pick(number, d, r))
                number += 1
            if level:
                s = self.up[level - 1](s)
        u = self.tail(nn.functional.silu(self.last(s))).to(like.dtype)
        return (u[..., : image_shape[2], : image_shape[3]] + 1) / 2


class _Group(nn.Module):
    """Group of latents: its prior, its posterior, and its update of the state s."""

    def __init__(self, width: int, latent: int, stack: nn.Module) -> None:
        super().__init__()
        self.stack = stack
        self.law = zero_convolution(width, 2 * latent)
        self.mix = nn.Conv2d(2 * width, width, 3, padding=1)
        self.residual = zero_convolution(width, 2 * latent)
        self.insert = nn.Conv2d(latent, width, 3, padding=1)

    def forward(self, s: Tensor, e: Tensor) -> Tensor:
        mean, log_std = self.law(nn.functional.silu(s)).chunk(2, dim=1)
        z = mean + bounded(log_std, LOG_RATIO).exp() * e
        return self.stack(s + self.insert(z))

    def posterior(self, s: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-std of e given the state and the features of an image."""
        mixed = self.mix(nn.functional.silu(torch.cat((s, h), dim=1)))
        residual = self.residual(nn.functional.silu(mixed)).to(self.residual.weight.dtype)
        d, r = residual.chunk(2, dim=1)
        return d, bounded(r, LOG_RATIO)


def _receptive_radius(groups: Sequence[int], blocks: int) -> int:
    """Returns the receptive radius of decode(encode(x)) in pixels."""
    up = 1 + sum(2 * blocks * 2**level for level in range(len(groups)))
    # per group: `mix`, `residual` and `insert`, then the residual blocks
    down = sum((3 + 2 * blocks) * count * 2**level for level, count in enumerate(groups))
    return up + down + 2 * blocks + 1 + 2 ** (len(groups) - 1) - 1
