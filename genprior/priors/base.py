"""What a prior can do. A solver asks for an ability, never for a model by name.

Notation, everywhere: `x` image, `z` latent, `sigma` noise level, `x_hat` denoised image.
Images are (B, C, H, W) floats in [0, 1]; `sigma` is in the same unit. The images of a
batch are independent of each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise


class Denoiser(ABC):
    """Has the posterior mean of an image under white Gaussian noise.

    Attributes:
        reach: Pixels of x that are farther away than this, in rows or columns, do not change
            an estimate; None if all do.
        stride: Shifting x by a multiple of this shifts the estimate with it.
        is_inpainter: It has `denoise_masked`.
        symmetries: Which of the eight flips and quarter turns of an image leave it as probable:
            k % 4 quarter turns, and then, where k >= 4, a flip from left to right.
    """

    receptive_radius: int | None = None
    stride: int = 1
    is_inpainter: bool = False
    symmetries: Sequence[int] = (0,)

    @abstractmethod
    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x0 + sigma n = x] with n ~ N(0, I).

        Arguments:
            x: Noisy images, shape (B, C, H, W), in [0, 1] before the noise.
            sigma: Noise level in the unit of the images, > 0; a number or shape (B,).

        Returns:
            Denoised images, shape (B, C, H, W), not clipped.
        """

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        """E[x0 | the known pixels of x0 + sigma n].

        Arguments:
            x: Noisy images, shape (B, C, H, W); where they are unknown, what
                `genprior.core.pull_push` makes of the known pixels.
            sigma: Noise level, >= 0; a number or shape (B,).
            unknown: 1 where a pixel is unknown, else 0; shape (B, 1, H, W).

        Returns:
            Images, shape (B, C, H, W), not clipped; pixels that are known exactly are unchanged.
        """
        raise NotImplementedError(f"{type(self).__name__} knows of no holes")


class Decoder(ABC):
    """Maps latents z ~ N(0, I) to images.

    Attributes:
        size: Height and width of the only images that it makes, None if they can be any.
        maps: Of latents that have places in the image, what z.flatten(1) is the chain of:
            (channels, pixels that a site is wide and high) of every map of them. A side that is
            no multiple of `stride` counts as the next one.
        reach: A pixel that is farther away than this from all pixels of a site, in rows or
            columns, does not depend on it; nor, where there is an encoder, does the site on
            the pixel, nor the pixel on those beyond the site. None if all do.
        stride: Shifting the latents by sites shifts the image with them if it is by a multiple
            of this many pixels.
    """

    size: tuple[int, int] | None = None
    latent_maps: Sequence[tuple[int, int]] = ()
    receptive_radius: int | None = None
    stride: int = 1

    @abstractmethod
    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        """Shape of the latents of images of shape (B, C, H, W), batch included."""

    @abstractmethod
    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        """Images of shape `image_shape` from latents z."""


class Layered(Decoder):
    """A decoder that is a chain of layers, so that a search can start in its middle."""

    @abstractmethod
    def layers(self, image_shape: torch.Size) -> Sequence[Callable[[Tensor], Tensor]]:
        """Functions, at least two, whose chain, the first one first, is `decode`.

        Each takes and returns a tensor (B, ...) whose images are independent.
        """

    def rest(self, h: Tensor, first: int, image_shape: torch.Size) -> Tensor:
        """The image of what layer number `first` takes: the chain from there on."""
        for layer in self.layers(image_shape)[first:]:
            h = layer(h)
        return h

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        return self.rest(z, 0, image_shape)


class Encoder(Decoder):
    """Also finds the latents of an image."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Latents of images x (B, C, H, W) from which `decode` makes them, or nearly so."""


class Variational(Encoder):
    """A decoder with noise: x | z ~ N(decode(z), decoder_std^2 I), and a law of z given x."""

    @property
    @abstractmethod
    def decoder_std(self) -> Tensor:
        """Standard deviation of x around decode(z), in units of [0, 1]; shape ()."""

    @abstractmethod
    def reconstruct(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        """Images decoded from the latents of images x (B, C, H, W).

        Arguments:
            x: Images.
            temperature: In (0, 1]; below 1 the latents are drawn to the mean of their prior,
                as if its standard deviation were so many times smaller.
        """


class Density(ABC):
    """Has a tractable log-density."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of images (B, C, H, W) in [0, 1]; shape (B,)."""


class ActivationCheckpointing(ABC):
    """Can forget its activations and compute them again for gradients, exactly."""

    @abstractmethod
    def with_checkpointing(self) -> "ActivationCheckpointing":
        """The same prior, sharing its weights, that takes less memory and more time."""


@dataclass(frozen=True)
class Factor:
    """A covariance written as F F^T + floor^2 I, for images of one size.

    Arguments:
        shape: Shape of the w that F takes, without the batch.
        apply: F w: (B, *shape) -> (B, C, H, W).
        adjoint: F^T v: (B, C, H, W) -> (B, *shape).
        gram_inverse: (w, delta) -> (F^T F + delta I)^{-1} w, exactly or near enough to
            precondition, for delta >= 0 of shape (B,); at 0 the pseudo-inverse.
        floor: Standard deviation of the white part, in image units, >= 0.
        transfer: Where F w is the circular convolution of w with images t, cropped to the
            image: the Fourier transform of t, complex, (C, *torus), in the layout of `fft2`.
            None where F is something else.
    """

    shape: tuple[int, ...]
    apply: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    gram_inverse: Callable[[Tensor, Tensor], Tensor]
    floor: float
    transfer: Tensor | None = None

    def inverse(self, v: Tensor, delta: Tensor) -> Tensor:
        """(F F^T + delta I)^{-1} v, as near as `gram_inverse`; delta > 0 of shape (B,)."""
        return self.residual(v, delta) / per_image(delta, v)

    def residual(self, v: Tensor, delta: Tensor) -> Tensor:
        """delta (F F^T + delta I)^{-1} v; at delta = 0 its limit, what of v no F w has."""
        return v - self.apply(self.gram_inverse(self.adjoint(v), delta))

    def shrinkage(self, v: Tensor, sigma2: Tensor) -> Tensor:
        """sigma^2 (F F^T + floor^2 I + sigma^2 I)^{-1} v, sigma^2 >= 0 of shape (B,)."""
        delta = self.floor**2 + sigma2
        share = torch.where(delta > 0, sigma2 / torch.where(delta > 0, delta, 1), 1)
        return per_image(share, v) * self.residual(v, delta)


class Gaussian(Denoiser, Decoder, Density):
    """Is a Gaussian law on images: mean, covariance and its square root are linear maps.

    `decode` is mean + L z with L L^T the covariance.
    """

    @abstractmethod
    def mean(self, image_shape: torch.Size) -> Tensor:
        """Mean image, broadcastable to `image_shape`."""

    @abstractmethod
    def cov(self, v: Tensor) -> Tensor:
        """Covariance applied to fields v, shape (B, C, H, W)."""

    @abstractmethod
    def factor(self, image_shape: torch.Size, like: Tensor) -> Factor:
        """The covariance as a factor and a floor, in the type and on the device of `like`."""


class Trainable(ABC):
    """Can be trained by `genprior.training.loop`: one optimiser per group of parameters.

    `config`, `groups` and `losses` are all that a network with one loss needs. A prior whose
    groups take turns, as the networks of a GAN do, also says in which order (`updates`), what
    the loss of some of them alone is (`losses_of`), and how their optimisers differ (`adam`).
    """

    @property
    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """Constructor arguments that rebuild this prior, JSON types only."""

    @abstractmethod
    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Parameters by group name; each group has its own optimiser."""

    @abstractmethod
    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        """Scalar training loss of every group: the mean over the images of a batch.

        Arguments:
            x: Images, shape (B, C, H, W) in [0, 1].
            noise: All random numbers that are drawn here. Each image has its own, so that it
                does not matter into which parts, on which processes, a batch is split. (The
                global state, which dropout uses, is seeded for every part of a batch.)
        """

    def inherit(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What of the weights of another prior of this kind one can begin with."""
        own = self.state_dict()
        return {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}

    def prepare(self, x: Tensor, noise: Noise) -> None:  # noqa: B027
        """Sets what depends on a first batch of images; called once, with all of it.

        By default nothing does.
        """

    def updates(self) -> Sequence[Collection[str]]:
        """Updates of one training step, in order: the groups of each.

        Every update has its own batch and its own random numbers. The groups of one update
        are changed together, after the gradients of all their losses. By default there is
        one update, of all groups; a GAN with five critic steps for one of the generator
        returns `[["critic"]] * 5 + [["generator"]]`.
        """
        return (tuple(self.groups()),)

    def losses_of(
        self, groups: Collection[str], x: Tensor, noise: Noise
    ) -> Mapping[str, Tensor]:
        """Losses of the groups of one update; override it where they cost less than all."""
        losses = self.losses(x, noise)
        return {group: losses[group] for group in groups}

    def adam(self, group: str) -> Mapping[str, Any]:
        """How AdamW of a group differs from the run's.

        `betas` (0.9, 0.99) replace the default given here; `lr` (1) multiplies the run's
        learning rate.
        """
        return {}


ABILITIES: dict[str, type] = {
    "denoiser": Denoiser,
    "decoder": Decoder,
    "layered": Layered,
    "encoder": Encoder,
    "variational": Variational,
    "density": Density,
    "gaussian": Gaussian,
    "trainable": Trainable,
}
