"""Variational autoencoder (VAE): x | z ~ p(x | G(z)), z ~ N(0, I), and an encoder q(z | x).

    log p(x) >= E_q[log p(x | z)] - beta KL(q(z | x) || p(z)),   q = N(mu(x), diag s(x)^2)

    KL = 1/2 sum (mu^2 + s^2 - 1 - 2 log s)

The bound holds for beta >= 1; beta = 0 gives a deterministic autoencoder. The latent is one vector
for images of one size, or a map of vectors for images of any size.

References:
    Auto-Encoding Variational Bayes, Kingma and Welling, 2014.
    beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework, Higgins
        et al., 2017.
    Importance Weighted Autoencoders, Burda, Grosse and Salakhutdinov, 2016 (the bound).
    Simple and Effective VAE Training with Calibrated Decoders, Rybkin, Daniilidis and Levine,
        2021 (the learned standard deviation).

Differs from the authors' code:
    1. The loss is in nats per number of the image.
    2. The encoder can be trained on noisy images, because solvers apply it to noisy images.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genprior.core.random_streams import Noise
from genprior.priors.arguments import check_sizes
from genprior.priors.base import Trainable, Variational
from genprior.priors.elbo import (
    add_training_noise,
    divergence,
    importance_bound,
    log_bernoulli,
    log_normal,
    sampled_divergence,
)
from genprior.priors.nets.autoencoder import ConvolutionalCoder, DenseCoder
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple

LOG_STD_RANGE = (-7.0, 4.0)
SMALLEST_STD = 1 / 255


class VAE(nn.Module, Variational, Trainable):
    """Variational autoencoder prior.

    Arguments:
        channels: Image channels of the network, 3 or 1.
        latent: Dimension of the latent vector, or channels of the latent map.
        widths: Features per level of a convolutional network, whose coarsest map has
            2^(levels - 1) times fewer rows and columns; or per hidden layer of a dense one.
        blocks: Residual blocks per level of the convolutional network.
        size: Height and width of the images for a latent vector; None for a latent map and
            images of any size.
        architecture: "convolutional" or "dense"; "dense" needs `size`.
        likelihood: "gaussian", or "bernoulli" for binary images. "bernoulli" is trained on
            binary images whose pixels are 1 with a probability equal to the grey value.
        std: Standard deviation of the Gaussian likelihood, in units of [0, 1], or "learned".
            With "bernoulli" only solvers use it.
        beta: Weight of the KL divergence in the loss, >= 0.
        divergence: "exact" for the closed form, or "sampled" for its Monte Carlo estimate.
        noise: Maximum standard deviation of the noise added to the input of the encoder in
            training, in units of [0, 1], >= 0.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 24,
        widths: Sequence[int] = (32, 64, 160),
        blocks: int = 1,
        size: Sequence[int] | None = None,
        architecture: Literal["convolutional", "dense"] = "convolutional",
        likelihood: Literal["gaussian", "bernoulli"] = "gaussian",
        std: float | Literal["learned"] = "learned",
        beta: float = 1.0,
        divergence: Literal["exact", "sampled"] = "exact",
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        _check(likelihood, std, beta, divergence, noise)
        check_sizes(channels=channels, latent=latent, blocks=blocks, size=size)
        if widths or architecture != "dense":  # which may have no hidden layer
            check_sizes(widths=widths)
        self._config = {
            "channels": channels,
            "latent": latent,
            "widths": list(widths),
            "blocks": blocks,
            "size": None if size is None else list(size),
            "architecture": architecture,
            "likelihood": likelihood,
            "std": std,
            "beta": beta,
            "divergence": divergence,
            "noise": noise,
        }
        self.channels, self.beta = channels, beta
        self.size = None if size is None else tuple(size)
        self.coder = _build_coder(architecture, channels, latent, widths, blocks, self.size)
        if size is None:
            self.stride, self.latent_maps = self.coder.multiple, ((latent, self.coder.multiple),)
            self.receptive_radius = (
                2 * self.coder.receptive_radius + self.stride - 1
            )  # from image to latent and back
        first = math.log(0.1 if std == "learned" else std)
        self.log_std = nn.Parameter(torch.tensor(first), requires_grad=std == "learned")

    @property
    def config(self) -> Mapping[str, Any]:
        return self._config

    @property
    def decoder_std(self) -> Tensor:
        std = self.log_std.exp()  # its gradient is not cut off below the floor
        return std + (std.clamp(min=SMALLEST_STD) - std).detach()

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"vae": [p for p in self.parameters() if p.requires_grad]}

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        batch, _, *size = image_shape
        if self.size is not None:
            self._check_size(tuple(size))
            return batch, self._config["latent"]
        f = self.coder.multiple
        return batch, self._config["latent"], -(-size[0] // f), -(-size[1] // f)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log standard deviation of q(z | x), each of the shape of z."""
        x = to_network(x, self.channels)
        if self.size is None:
            x = pad_to_multiple(x, self.coder.multiple)[0]
        else:
            self._check_size(tuple(x.shape[-2:]))
        mean, log_std = self.coder.encode(2 * x - 1).to(x.dtype).chunk(2, dim=1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        logits = self._decode(z, image_shape)
        bernoulli = self._config["likelihood"] == "bernoulli"
        return from_network(logits.sigmoid() if bernoulli else logits, image_shape[1])

    def reconstruct(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        mean, log_std = self.posterior(x)
        shrinkage = 1 / temperature**2 - 1
        return self.decode(mean / (1 + shrinkage * (2 * log_std).exp()), x.shape)

    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        if self._config["likelihood"] == "bernoulli":
            x = (noise.uniform(x) < x).to(x)
        mean, log_std = self.posterior(add_training_noise(x, self._config["noise"], noise))
        if not self.beta:
            return {"vae": -self._log_likelihood(x, mean).mean() / x[0].numel()}
        n = noise.normal(mean)
        z = mean + log_std.exp() * n
        exact = self._config["divergence"] == "exact"
        kl = divergence(mean, log_std) if exact else sampled_divergence(z, n, log_std)
        loss = self.beta * kl - self._log_likelihood(x, z)
        return {"vae": loss.mean() / x[0].numel()}

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, samples: int, noise: Noise) -> Tensor:
        """Returns the importance-weighted bound on log p(x) in nats, shape (B,).

        It is the bound of Burda et al., whose mean increases with the number of samples.

        Arguments:
            x: Images, binary ones for a Bernoulli likelihood.
            samples: Importance samples per image, >= 1.
            noise: Random numbers.
        """
        mean, log_std = self.posterior(x)

        def log_weight() -> Tensor:
            n = noise.normal(mean)
            z = mean + log_std.exp() * n
            return self._log_likelihood(x, z) - sampled_divergence(z, n, log_std)

        return importance_bound(log_weight, samples)

    def _decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        """Returns means, or logits if Bernoulli, with the channels of the network."""
        self.latent_shape(image_shape)
        out = self.coder.decode(z)
        out = out[..., : image_shape[2], : image_shape[3]]
        return out if self._config["likelihood"] == "bernoulli" else (out + 1) / 2

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        x = to_network(x, self.channels)
        out = self._decode(z, x.shape).to(x.dtype)
        if self._config["likelihood"] == "bernoulli":
            return log_bernoulli(x, out)
        return log_normal(x, out, self.decoder_std)

    def _check_size(self, size: tuple[int, ...]) -> None:
        if size != self.size:
            raise ValueError(
                f"this prior takes images of {self.size[0]} x {self.size[1]} pixels (height x "
                f"width), got {size[0]} x {size[1]}: crop or resize the images"
            )


def _build_coder(
    architecture: str,
    channels: int,
    latent: int,
    widths: Sequence[int],
    blocks: int,
    size: tuple[int, ...] | None,
) -> nn.Module:
    if architecture not in ("convolutional", "dense"):
        raise ValueError(f"architecture must be 'convolutional' or 'dense', got {architecture!r}")
    if architecture == "convolutional":
        multiple = 2 ** (len(widths) - 1)
        if size is not None and any(n % multiple for n in size):
            raise ValueError(
                f"size must be multiples of {multiple} for {len(widths)} levels, got {list(size)}"
            )
        return ConvolutionalCoder(channels, latent, widths, blocks, size)
    if size is None:
        raise ValueError("a dense network needs the size of the images: set it")
    return DenseCoder((channels, *size), latent, widths)


def _check(likelihood: str, std: float | str, beta: float, divergence: str, noise: float) -> None:
    if likelihood not in ("gaussian", "bernoulli"):
        raise ValueError(f"likelihood must be 'gaussian' or 'bernoulli', got {likelihood!r}")
    if divergence not in ("exact", "sampled"):
        raise ValueError(f"divergence must be 'exact' or 'sampled', got {divergence!r}")
    if std != "learned" and not (isinstance(std, int | float) and std >= SMALLEST_STD):
        raise ValueError(f"std must be 'learned' or at least 1/255, got {std!r}")
    if min(beta, noise) < 0:
        raise ValueError(f"beta and noise must be >= 0, got {beta} and {noise}")
