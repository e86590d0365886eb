"""Abstract base classes of priors, one per ability: denoiser, decoder, density, and so on.

A solver requires an ability, never a model by name.

Notation, everywhere: `x` image, `z` latent, `sigma` noise level, `x_hat` denoised image.
Images are (B, C, H, W) floats in [0, 1]; `sigma` is in the same unit. The images of a
batch are independent of each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise

# Sides in pixels of the random blocks that tell two measurements apart.
PROBES = (1, 4, 16)


class Denoiser(ABC):
    """Denoiser: the posterior mean of an image under white Gaussian noise.

    Attributes:
        receptive_radius: Receptive field: an output pixel does not depend on input pixels that
            are more than this many rows or columns away. None if it depends on all pixels.
        stride: Shifting x by a multiple of this many pixels shifts the output by the same amount.
        is_inpainter: Whether `denoise_masked` is implemented.
        symmetries: Which of the eight flips and rotations of an image leave its probability
            unchanged. Number k is k % 4 quarter turns, followed by a left-right flip if k >= 4.
        suits_schedules: Whether it was trained as `ddpm`, on photos at all noise levels, so that
            the schedules that were trained with `ddpm` suit it.
        is_unrolled: Whether `denoise_unrolled` is implemented.
    """

    suits_schedules: bool = False
    is_unrolled: bool = False
    receptive_radius: int | None = None
    stride: int = 1
    is_inpainter: bool = False
    symmetries: Sequence[int] = (0,)

    @abstractmethod
    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Returns E[x0 | x0 + sigma n = x] with n ~ N(0, I).

        Arguments:
            x: Noisy images, shape (B, C, H, W), in [0, 1] before the noise.
            sigma: Noise level in the unit of the images, > 0; a number or shape (B,).

        Returns:
            Denoised images, shape (B, C, H, W), not clipped.
        """

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        """Returns E[x0 | the known pixels of x0 + sigma n].

        Arguments:
            x: Noisy images, shape (B, C, H, W). Unknown pixels are filled by
                `genprior.core.pull_push` from the known ones.
            sigma: Noise level, >= 0; a number or shape (B,).
            unknown: 1 where a pixel is unknown, else 0; shape (B, 1, H, W).

        Returns:
            Images, shape (B, C, H, W), not clipped. Where sigma is 0, known pixels are unchanged.

        Raises:
            NotImplementedError: `is_inpainter` is False.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot denoise masked images")

    def denoise_unrolled(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Returns images x without what a step of `hqs` left in them.

        The network was trained within a fixed number of these steps, unrolled, for the error of
        the last image: it is no posterior mean, and only those steps may use it.

        Arguments:
            x: Images, shape (B, C, H, W).
            sigma: Noise level of the step, > 0; a number or shape (B,).

        Returns:
            Images, shape (B, C, H, W), not clipped.

        Raises:
            NotImplementedError: `is_unrolled` is False.
        """
        raise NotImplementedError(f"{type(self).__name__} has no network for unrolled steps")


class Decoder(ABC):
    """Decoder of latents z ~ N(0, I) to images.

    Attributes:
        size: Height and width of the images, if only one size is possible; None for any size.
        latent_maps: For latents with a position in the image: z.flatten(1) concatenates maps,
            and each entry is (channels, f) of one map, whose sites cover f x f pixels. An image
            side that is no multiple of `stride` counts as the next multiple.
        receptive_radius: Receptive field: a pixel does not depend on a latent site whose pixels
            are all more than this many rows or columns away. With an encoder, the site does not
            depend on such a pixel either, and a pixel of decode(encode(x)) does not depend on
            pixels of x that are farther away than this. None if there is no such bound.
        stride: Shifting the latents by a multiple of this many pixels shifts the image by the
            same amount.
    """

    size: tuple[int, int] | None = None
    latent_maps: Sequence[tuple[int, int]] = ()
    receptive_radius: int | None = None
    stride: int = 1

    @abstractmethod
    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        """Returns the shape of the latents of images (B, C, H, W), batch dimension included."""

    @abstractmethod
    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        """Returns images of shape `image_shape` decoded from latents z."""


class Layered(Decoder):
    """Decoder made of successive layers, whose intermediate features can be optimised."""

    @abstractmethod
    def layers(self, image_shape: torch.Size) -> Sequence[Callable[[Tensor], Tensor]]:
        """Returns at least two functions whose composition, in this order, is `decode`.

        Each maps a tensor (B, ...) to a tensor (B, ...); entries of a batch are independent.
        """

    def rest(self, h: Tensor, first: int, image_shape: torch.Size) -> Tensor:
        """Applies layers `first` and later to h, the input of layer `first`; returns images."""
        for layer in self.layers(image_shape)[first:]:
            h = layer(h)
        return h

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        return self.rest(z, 0, image_shape)


class Encoder(Decoder):
    """Decoder with an encoder from images to latents."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Returns latents of images x (B, C, H, W); `decode` maps them to x or close to x."""


class Variational(Encoder):
    """Decoder x | z ~ N(decode(z), decoder_std^2 I) with a posterior of z given x."""

    @property
    @abstractmethod
    def decoder_std(self) -> Tensor:
        """Standard deviation of x around decode(z), in units of [0, 1]; shape ()."""

    @abstractmethod
    def reconstruct(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        """Encodes images x (B, C, H, W) and decodes their latents.

        Arguments:
            x: Images.
            temperature: In (0, 1]. Below 1 the latents are shrunk towards the mean of their
                prior, as if its standard deviation were multiplied by this.
        """


class LatentDenoiser(ABC):
    """Autoencoder of images, and a denoiser of its latents: latent diffusion.

    Latents z are scaled to a variance of about 1 and are not Gaussian; the noise level of a latent
    is in the unit of the latents.
    """

    @abstractmethod
    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        """Returns the shape of the latents of images (B, C, H, W), batch dimension included."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Returns the latents of images x (B, C, H, W)."""

    @abstractmethod
    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        """Returns images of shape `image_shape` decoded from latents z, not clipped."""

    @abstractmethod
    def denoise_latents(self, z: Tensor, s: float | Tensor) -> Tensor:
        """Returns E[z0 | z0 + s n = z] with n ~ N(0, I); s > 0, a number or shape (B,)."""


class ConditionalGenerator(ABC):
    """Generator of images given a rough reconstruction of each, trained for one task.

    Attributes:
        task: Task whose measurements it was trained on, as in `genprior evaluate --task`; "" if
            it is unknown.
        signature: What these measurements lose: the relative error of the rough reconstruction of
            random blocks of `PROBES` pixels, shape (len(PROBES),).
    """

    task: str
    signature: Tensor

    @abstractmethod
    def translate(self, u: Tensor) -> Tensor:
        """Returns images (B, C, H, W), not clipped, of rough reconstructions u of that shape."""


class Density(ABC):
    """Tractable log-density of images.

    Attributes:
        map_weight: Default weight of the log-density in `map`.
        map_step_size: Default step size of `map`.
    """

    map_weight: float = 1.0
    map_step_size: float = 0.01

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Returns the log-density in nats of images (B, C, H, W) in [0, 1]; shape (B,)."""


class ActivationCheckpointing(ABC):
    """Gradient checkpointing: activations are recomputed in the backward pass, exactly."""

    @abstractmethod
    def with_checkpointing(self) -> "ActivationCheckpointing":
        """Returns the same prior, with shared weights, using less memory and more time."""


@dataclass(frozen=True)
class Factor:
    """Covariance in the form F F^T + floor^2 I, for images of one size.

    Arguments:
        shape: Shape of the input w of F, without the batch dimension.
        apply: F w: (B, *shape) -> (B, C, H, W).
        adjoint: F^T v: (B, C, H, W) -> (B, *shape).
        gram_inverse: (w, delta) -> (F^T F + delta I)^{-1} w, exact or accurate enough for a
            preconditioner; delta >= 0 of shape (B,); the pseudo-inverse at 0.
        floor: Standard deviation of the white part, in image units, >= 0.
        transfer: If F w is the circular convolution of w with images t, cropped to the image
            size: the Fourier transform of t, complex, (C, *torus), in the layout of `fft2`.
            None for any other F.
    """

    shape: tuple[int, ...]
    apply: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    gram_inverse: Callable[[Tensor, Tensor], Tensor]
    floor: float
    transfer: Tensor | None = None

    def inverse(self, v: Tensor, delta: Tensor) -> Tensor:
        """Returns (F F^T + delta I)^{-1} v, as accurate as `gram_inverse`; delta > 0, (B,)."""
        return self.residual(v, delta) / per_image(delta, v)

    def residual(self, v: Tensor, delta: Tensor) -> Tensor:
        """Returns delta (F F^T + delta I)^{-1} v, delta >= 0 of shape (B,).

        At delta = 0 this is the limit: the component of v orthogonal to the range of F.
        """
        return v - self.apply(self.gram_inverse(self.adjoint(v), delta))

    def shrinkage(self, v: Tensor, sigma2: Tensor) -> Tensor:
        """Returns sigma^2 (F F^T + floor^2 I + sigma^2 I)^{-1} v, sigma^2 >= 0 of shape (B,)."""
        delta = self.floor**2 + sigma2
        share = torch.where(delta > 0, sigma2 / torch.where(delta > 0, delta, 1), 1)
        return per_image(share, v) * self.residual(v, delta)


class Gaussian(Denoiser, Decoder, Density):
    """Gaussian distribution of images, whose covariance and its square root are linear maps.

    `decode(z)` is mean + L z, where L L^T is the covariance.
    """

    @abstractmethod
    def mean(self, image_shape: torch.Size) -> Tensor:
        """Returns the mean image, broadcastable to `image_shape`."""

    @abstractmethod
    def cov(self, v: Tensor) -> Tensor:
        """Applies the covariance to v, shape (B, C, H, W)."""

    @abstractmethod
    def factor(self, image_shape: torch.Size, like: Tensor) -> Factor:
        """Returns the covariance as a `Factor`, with the dtype and device of `like`."""


class Trainable(ABC):
    """Prior that `genprior.training.loop` trains, with one optimiser per parameter group.

    A prior with a single loss defines `config`, `groups` and `losses`. A prior whose groups are
    updated in turn, such as a GAN, also defines their order (`updates`), the losses of some
    groups alone (`losses_of`), and the optimiser settings per group (`adam`).
    """

    @property
    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """Constructor arguments of this prior, JSON types only."""

    @abstractmethod
    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Returns the parameters by group name; each group has its own optimiser."""

    @abstractmethod
    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        """Returns the scalar training loss of every group, a mean over the images of a batch.

        Arguments:
            x: Images, shape (B, C, H, W) in [0, 1].
            noise: Source of all random numbers drawn here. Each image has its own stream, so
                the result does not depend on how a batch is split over micro-batches and
                processes. (The global random state, which dropout uses, is seeded for every
                micro-batch.)
        """

    def inherit(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors of another prior of this class that fit this one, by name."""
        own = cast(nn.Module, self).state_dict()
        return {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}

    def prepare(self, x: Tensor, noise: Noise) -> None:  # noqa: B027
        """Initialises parameters from the first batch of images; called once, on all of it.

        The default does nothing.
        """

    def updates(self) -> Sequence[Collection[str]]:
        """Returns the groups of each update of one training step, in order.

        Every update has its own batch and its own random numbers. The groups of one update
        are updated together, after the gradients of all their losses were computed. The
        default is one update of all groups. A GAN with five critic steps per generator step
        returns `[["critic"]] * 5 + [["generator"]]`.
        """
        return (tuple(self.groups()),)

    def losses_of(
        self, groups: Collection[str], x: Tensor, noise: Noise
    ) -> Mapping[str, Tensor]:
        """Returns the losses of some groups; override it if they cost less than all losses."""
        losses = self.losses(x, noise)
        return {group: losses[group] for group in groups}

    def distil(self, teacher: "Denoiser") -> None:
        """Trains towards the estimates of a denoiser, the teacher, from now on.

        Its estimates are averaged over flips and turns (self-ensemble). In evaluation mode the
        losses are those without a teacher.

        References:
            Distilling the Knowledge in a Neural Network, Hinton et al., 2015.

        Raises:
            SettingError: This prior cannot learn from a teacher, which is the default.
        """
        raise SettingError(
            f"a {type(self).__name__} cannot learn from a teacher: train it on the images only"
        )

    def adam(self, group: str) -> Mapping[str, Any]:
        """Returns the AdamW settings of a group that differ from those of the run.

        `betas` replaces the default (0.9, 0.99); `lr` (default 1) multiplies the learning rate
        of the run.
        """
        return {}


ABILITIES: dict[str, type] = {
    "denoiser": Denoiser,
    "decoder": Decoder,
    "layered": Layered,
    "encoder": Encoder,
    "variational": Variational,
    "latent-denoiser": LatentDenoiser,
    "conditional": ConditionalGenerator,
    "density": Density,
    "gaussian": Gaussian,
    "trainable": Trainable,
}
