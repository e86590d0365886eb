"""Conditional GAN (pix2pix): a U-Net G from a rough reconstruction u of y to an image.

    critic:     -log s(D(u, x)) - log(1 - s(D(u, G(u))))          a mean over patches
    generator:  -log s(D(u, G(u))) + k |x - G(u)|                 means over patches and pixels

with s the logistic function, and images in [-1, 1]. The network is trained for the measurements
of one task: it amortises the solution, and is not a distribution of images.

References:
    Image-to-Image Translation with Conditional Adversarial Networks, Isola, Zhu, Zhou and Efros,
        2017.

Differs from the authors' code:
    1. G is deterministic: without dropout, which gave the authors little variety.
    2. Batches hold several images, and a restoration uses the averages of batch normalisation
       over the training, not the statistics of the image at hand.
    3. The loss of the critic is not halved.
    4. The networks: see `priors/nets/pix2pix.py`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.random_streams import Noise
from genprior.priors.arguments import check_sizes
from genprior.priors.base import PROBES, ConditionalGenerator, Trainable
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple
from genprior.priors.nets.pix2pix import PatchCritic, UNetGenerator

BETAS = (0.5, 0.999)


class Pix2Pix(nn.Module, ConditionalGenerator, Trainable):
    """Conditional generator of images of any size, trained for the measurements of one task.

    It is trained on pairs: images (B, 2 C, H, W) whose first C channels are an image, and the
    other C its rough reconstruction. Both networks use batch normalisation over the micro-batch
    of one process. Their training therefore depends on the number of processes and on
    `--accumulate`.

    Arguments:
        channels: Image channels of the network, 3 or 1.
        widths: Features per level of the U-Net, the finest first.
        critic_widths: Features per level of the critic of patches; each halves the resolution.
        l1: Weight k of the L1 distance, > 0. Larger weights give more accurate and more blurred
            images.
        task: Task whose measurements it is trained on, as in `genprior evaluate --task`; "" if it
            is unknown.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 128),
        critic_widths: Sequence[int] = (32, 64, 128),
        l1: float = 100.0,
        task: str = "",
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, widths=widths)
        check_sizes(widths=critic_widths)
        if not 0 < l1 < float("inf"):
            raise ValueError(f"l1 must be > 0 and finite, got {l1}")
        self._config = {
            "channels": channels,
            "widths": list(widths),
            "critic_widths": list(critic_widths),
            "l1": l1,
            "task": task,
        }
        self.channels, self.l1, self.task = channels, l1, task
        self.generator = UNetGenerator(channels, widths)
        self.critic = PatchCritic(channels, critic_widths)
        self.register_buffer("signature", torch.zeros(len(PROBES)))

    @property
    def config(self) -> Mapping[str, Any]:
        return self._config

    def translate(self, u: Tensor) -> Tensor:
        v, crop = pad_to_multiple(to_network(u, self.channels), self.generator.multiple)
        out = (self.generator(2 * v - 1)[crop] + 1) / 2
        return from_network(out, u.shape[1])

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"critic": self.critic.parameters(), "generator": self.generator.parameters()}

    def updates(self) -> Sequence[Collection[str]]:
        return [["critic"], ["generator"]]

    def adam(self, group: str) -> Mapping[str, Any]:
        return {"betas": BETAS}

    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        return self.losses_of(("critic", "generator"), x, noise)

    def losses_of(
        self, groups: Collection[str], x: Tensor, noise: Noise
    ) -> Mapping[str, Tensor]:
        images, rough = x.chunk(2, dim=1)
        real, losses = 2 * to_network(images, self.channels) - 1, {}
        u = 2 * to_network(rough, self.channels) - 1
        with torch.set_grad_enabled("generator" in groups and torch.is_grad_enabled()):
            fake = 2 * self.translate(to_network(rough, self.channels)) - 1
        softplus = nn.functional.softplus
        if "critic" in groups:
            losses["critic"] = (
                softplus(-self.critic(u, real)).mean()
                + softplus(self.critic(u, fake.detach())).mean()
            )
        if "generator" in groups:
            distance = (real - fake).abs().mean()
            losses["generator"] = softplus(-self.critic(u, fake)).mean() + self.l1 * distance
        return losses
