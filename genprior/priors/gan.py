"""Generative adversarial network: a generator G of latents z ~ N(0, I) and a critic D.

    minimax        critic: -log s(D(x)) - log(1 - s(D(G(z))))      generator: log(1 - s(D(G(z))))
    nonsaturating  critic: -log s(D(x)) - log(1 - s(D(G(z))))      generator: -log s(D(G(z)))
    wgan-clip      critic: D(G(z)) - D(x), weights in [-c, c]      generator: -D(G(z))
    wgan-gp        critic: D(G(z)) - D(x) + k (|grad D(u)| - 1)^2  generator: -D(G(z))

with s the logistic function and u a random point between x and G(z).

References:
    Generative Adversarial Nets, Goodfellow et al., 2014.
    Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks,
        Radford, Metz and Chintala, 2016.
    Wasserstein Generative Adversarial Networks, Arjovsky, Chintala and Bottou, 2017.
    Improved Training of Wasserstein GANs, Gulrajani et al., 2017.
    A Style-Based Generator Architecture for Generative Adversarial Networks, Karras, Laine and
        Aila, 2019 (truncation); Image2StyleGAN, Abdal, Qin and Wonka, 2019 (W+).

Differs from the authors' code:
    1. All losses are trained with Adam by default. The authors train WGAN with clipping by
        RMSProp, which is an option of the training.
    2. The critic of a Wasserstein loss has no normalisation. It is updated once per generator
        step by default; the authors update it 5 times (`critic_steps=5`).
    3. The style-based generator is trained like the others: no gradient or path-length penalty,
        no style mixing, no equalised learning rates.
"""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genprior.core.random_streams import Noise
from genprior.priors.arguments import check_sizes
from genprior.priors.base import Layered, Trainable
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.dcgan import Critic, DCGenerator
from genprior.priors.nets.stylegan import StyleGenerator

Space = Literal["z", "w", "w+"]
BETAS = {"minimax": (0.5, 0.999), "nonsaturating": (0.5, 0.999), "wgan-clip": (0.0, 0.99),
         "wgan-gp": (0.0, 0.9)}
# Losses of a critic that is a classifier: its output is a logit, and it has batch normalisation.
CLASSIFIERS = ("minimax", "nonsaturating")
AVERAGING = 0.995


class GAN(nn.Module, Layered, Trainable):
    """Generative adversarial prior.

    The DCGAN generator and the critic of "minimax" and "nonsaturating" use batch normalisation
    over the micro-batch of one process. Their training therefore depends on the number of
    processes and on `--accumulate`.

    Arguments:
        channels: Image channels of the network, 3 or 1.
        latent: Dimension of the latent vector, or latent channels of a latent map.
        widths: Features per level, the finest first.
        size: Height and width of the images for a latent vector; None for a latent map and
            images of any size.
        architecture: "dcgan" or "style". "style" needs `size`; its latents are z and the noise
            inputs.
        loss: "minimax", "nonsaturating", "wgan-clip" or "wgan-gp". The gradient of "minimax"
            vanishes while the critic recognises all generated images.
        critic_steps: Critic updates per generator update, >= 1.
        strength: k of "wgan-gp" or c of "wgan-clip", > 0; None means 10 or 0.01.
        space: Latent space of a "style" decoder: "z"; "w", one style standardised by the mean
            and variance of w; "w+", a standardised style per layer.
        upsampling: How a "dcgan" doubles the resolution: "nearest" neighbours and a 3 x 3
            convolution, or a "transposed" 4 x 4 convolution of stride 2, as in the paper.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 32,
        widths: Sequence[int] = (32, 64, 128),
        size: Sequence[int] | None = None,
        architecture: Literal["dcgan", "style"] = "dcgan",
        loss: Literal["minimax", "nonsaturating", "wgan-clip", "wgan-gp"] = "nonsaturating",
        critic_steps: int = 1,
        strength: float | None = None,
        space: Space = "z",
        upsampling: Literal["nearest", "transposed"] = "nearest",
    ) -> None:
        super().__init__()
        if architecture not in ("dcgan", "style"):
            raise ValueError(f"architecture must be 'dcgan' or 'style', got {architecture!r}")
        if loss not in BETAS:
            raise ValueError(f"loss must be one of {', '.join(BETAS)}, got {loss!r}")
        if upsampling not in ("nearest", "transposed"):
            raise ValueError(f"upsampling must be 'nearest' or 'transposed', got {upsampling!r}")
        if upsampling != "nearest" and architecture == "style":
            raise ValueError("a style-based generator upsamples nearest neighbours: set no other")
        check_sizes(channels=channels, latent=latent, widths=widths, size=size)
        if strength is None:
            strength = 0.01 if loss == "wgan-clip" else 10.0
        if critic_steps < 1 or not strength > 0:
            raise ValueError(
                f"critic_steps must be at least 1 and strength > 0, got {critic_steps} and "
                f"{strength}"
            )
        self._config = {
            "channels": channels,
            "latent": latent,
            "widths": list(widths),
            "size": None if size is None else list(size),
            "architecture": architecture,
            "loss": loss,
            "critic_steps": critic_steps,
            "strength": strength,
            "space": space,
            "upsampling": upsampling,
        }
        self.channels, self.latent, self.loss = channels, latent, loss
        self.style = architecture == "style"
        if self.style and size is None:
            raise ValueError("a style-based generator needs the size of the images: set it")
        self.size = None if size is None else tuple(size)
        if size is not None and any(n % 2 ** (len(widths) - self.style) for n in size):
            raise ValueError(
                f"size must be multiples of {2 ** (len(widths) - self.style)} for "
                f"{len(widths)} levels, got {list(size)}"
            )
        self.generator = (
            StyleGenerator(channels, latent, widths, size) if self.style
            else DCGenerator(channels, latent, widths, size, upsampling)
        )
        if size is None:
            self.stride, self.latent_maps = (
                self.generator.multiple,
                ((latent, self.generator.multiple),),
            )
            self.receptive_radius = self.generator.receptive_radius
        self.critic = Critic(channels, widths, size, normalise=loss in CLASSIFIERS)
        self.register_buffer("w_mean", torch.zeros(latent))
        self.register_buffer("w_std", torch.ones(latent))
        self.truncation, self.space = 1.0, "z"
        self._set_space(space)

    @property
    def config(self) -> Mapping[str, Any]:
        return self._config

    def in_space(self, space: Space) -> "GAN":
        """Returns the same generator, with shared weights, for another latent space."""
        other = copy.copy(self)
        other._set_space(space)
        return other

    def truncated(self, psi: float) -> "GAN":
        """Returns the same generator, with shared weights, and styles w_mean + psi (w - w_mean).

        Raises:
            ValueError: The generator has no styles, or psi is not in [0, 1].
        """
        if not self.style or not 0 <= psi <= 1:
            raise ValueError(
                f"truncation needs a style-based generator and psi in [0, 1], got psi = {psi}"
            )
        other = copy.copy(self)
        other.truncation = psi
        return other

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        batch, _, *size = image_shape
        if self.size is not None:
            if tuple(size) != self.size:
                raise ValueError(
                    f"this prior takes images of {self.size[0]} x {self.size[1]} pixels "
                    f"(height x width), got {size[0]} x {size[1]}: crop or resize the images"
                )
            if not self.style:
                return batch, self.latent
            styles = len(self.generator.layers) if self.space == "w+" else 1
            return batch, styles * self.latent + self.generator.noise
        f = self.generator.multiple
        return batch, self.latent, -(-size[0] // f), -(-size[1] // f)

    def layers(self, image_shape: torch.Size) -> Sequence[Callable[[Tensor], Tensor]]:
        self.latent_shape(image_shape)

        def to_image(u: Tensor) -> Tensor:
            u = u[..., : image_shape[2], : image_shape[3]]
            return from_network((u + 1) / 2, image_shape[1])

        if self.style:
            return self._styles, lambda v: to_image(self._synthesise(v))
        *first, last = self.generator.layers
        return *first, lambda h: to_image(last(h))

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"critic": self.critic.parameters(), "generator": self.generator.parameters()}

    def updates(self) -> Sequence[Collection[str]]:
        return [["critic"]] * self._config["critic_steps"] + [["generator"]]

    def adam(self, group: str) -> Mapping[str, Any]:
        return {"betas": BETAS[self.loss]}

    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        return self.losses_of(("critic", "generator"), x, noise)

    def losses_of(
        self, groups: Collection[str], x: Tensor, noise: Noise
    ) -> Mapping[str, Tensor]:
        z = noise.normal(x.new_empty(self.in_space("z").latent_shape(x.shape)))
        real, losses = 2 * to_network(x, self.channels) - 1, {}
        if self.loss == "wgan-clip":
            with torch.no_grad():
                for p in self.critic.parameters():
                    p.clamp_(-self._config["strength"], self._config["strength"])
        with torch.set_grad_enabled("generator" in groups):
            fake = 2 * self.in_space("z").decode(z, real.shape) - 1
        if "critic" in groups:
            losses["critic"] = self._critic_loss(real, fake.detach(), noise)
        if "generator" in groups:
            losses["generator"] = self._generator_loss(fake)
            if self.style:
                self._update_style_statistics(z)
        return losses

    def _critic_loss(self, real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
        D_real, D_fake = self.critic(real), self.critic(fake)
        if self.loss in CLASSIFIERS:
            softplus = nn.functional.softplus
            return (softplus(-D_real) + softplus(D_fake)).mean()
        loss = (D_fake - D_real).mean()
        if self.loss == "wgan-gp":
            share = noise.uniform(real[:, :1, :1, :1])
            u = torch.lerp(real, fake, share).requires_grad_()
            slope = torch.autograd.grad(self.critic(u).sum(), u, create_graph=True)[0]
            norm = (slope.square().flatten(1).sum(dim=1) + 1e-12).sqrt()
            loss = loss + self._config["strength"] * (norm - 1).square().mean()
        return loss

    def _generator_loss(self, fake: Tensor) -> Tensor:
        D_fake = self.critic(fake)
        if self.loss == "minimax":
            return -nn.functional.softplus(D_fake).mean()
        if self.loss == "nonsaturating":
            return nn.functional.softplus(-D_fake).mean()
        return -D_fake.mean()

    def _styles(self, z: Tensor) -> Tensor:
        """Maps latents to one vector: the styles of all layers and the noise inputs."""
        count = len(self.generator.layers)
        v, noise = z.split([z.shape[1] - self.generator.noise, self.generator.noise], dim=1)
        if self.space == "z":
            w = self.generator.map(v)
        else:
            w = self.w_mean + self.w_std * v.reshape(len(v), -1, self.latent)
        w = self.w_mean + self.truncation * (w - self.w_mean)
        w = w.reshape(len(v), -1, self.latent).expand(-1, count, -1)
        return torch.cat((w.flatten(1), noise), dim=1)

    def _synthesise(self, v: Tensor) -> Tensor:
        count = len(self.generator.layers) * self.latent
        w, noise = v[:, :count], v[:, count:]
        return self.generator(w.reshape(len(v), -1, self.latent), noise)

    @torch.no_grad()
    def _update_style_statistics(self, z: Tensor) -> None:
        """Updates the moving averages of the mean and standard deviation of w."""
        w = self.generator.map(z[:, : self.latent])
        self.w_mean.lerp_(w.mean(dim=0).to(self.w_mean), 1 - AVERAGING)
        # Deviations from the mean of a small batch would underestimate the variance.
        variance = (w - self.w_mean).square().mean(dim=0).to(self.w_std)
        self.w_std.copy_(self.w_std.square().lerp(variance, 1 - AVERAGING).sqrt())

    def _set_space(self, space: Space) -> None:
        if space not in ("z", "w", "w+") or (space != "z" and not self.style):
            raise ValueError(
                f"space must be 'z', or with a style-based generator 'w' or 'w+', got {space!r}"
            )
        self.space = space
