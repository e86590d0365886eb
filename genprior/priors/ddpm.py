"""Diffusion prior: a denoising network conditioned on the noise level.

With u = 2 x - 1 and s = 2 sigma the denoiser is

    D(u, s) = c_skip(s) u + c_out(s) F(c_in(s) u, ln(sigma) / 4)

and F is trained on unit-variance targets. An optional second network denoises images with unknown
pixels. Its input is the image with initial guesses there, and the mask. At these pixels the noise
level is that of the guess, sqrt(sigma^2 + e^2), where e grows as fewer pixels around are known.
One network of the same size for both tasks lost 0.3 dB in denoising. The objectives are:

    eps  c_skip = 1                      c_out = s                        c_in = (1 + s^2)^-1/2
    v    c_skip = 1 / (1 + s^2)          c_out = s (1 + s^2)^-1/2         c_in = (1 + s^2)^-1/2
    edm  c_skip = sd^2 / (s^2 + sd^2)    c_out = s sd (s^2 + sd^2)^-1/2   c_in = (s^2 + sd^2)^-1/2
    flow c_skip = 1 / (1 + s)            c_out = s / (1 + s)              c_in = 1 / (1 + s)

With "flow", F is the velocity u_0 - n of flow matching at the state c_in u = t u_0 + (1 - t) n,
where t = 1 / (1 + s); times are uniform in training.

References:
    Denoising Diffusion Probabilistic Models, Ho et al., 2020 (eps).
    Progressive Distillation for Fast Sampling of Diffusion Models, Salimans and Ho, 2022 (v).
    Elucidating the Design Space of Diffusion-Based Generative Models, Karras et al., 2022 (edm).
    Flow Matching for Generative Modeling, Lipman et al., 2023 (flow).

Differs from the authors' code:
    1. The network is conditioned on ln(sigma), not on a step index, so it takes any noise level.
    2. With "eps" and "v" the network predicts minus the noise and minus v.
    3. The training levels of "edm" are chosen for restoration: more of them are small.
    4. An optional second network fills holes, and an optional third one, a copy of the first
        trained further, denoises within the unrolled steps of the solver `hqs`.
    5. Noise levels of "flow" are at most 50, so that t is at least 0.01.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.core.pull_push import density, pull_push
from genprior.core.random_streams import Noise
from genprior.core.schedules import ddpm_sigmas
from genprior.core.symmetries import turn, turn_back
from genprior.priors.arguments import check_sizes
from genprior.priors.base import Denoiser, Trainable
from genprior.priors.nets.channels import from_network, to_network
from genprior.priors.nets.padding import pad_to_multiple
from genprior.priors.nets.pruning import prune_unet
from genprior.priors.nets.unet import UNet

Objective = Literal["eps", "v", "edm", "flow"]
SIGMA_DATA = 0.5
SIGMA_RANGE = (0.002, 50.0)
GREY_SHARE = 0.15
WIDE_SHARE = 0.1
HOLES_SHARE, EXACT_SHARE = 0.5, 0.7
# Grid spacing in pixels of the random field whose low values are blobs of unknown pixels.
BLOB_SIZE = 8
# Standard deviation of a guess if all pixels around are known; it grows where few are known.
GUESS_STD, LEAST_DENSITY = 0.04, 0.02


class DDPM(nn.Module, Denoiser, Trainable):
    """Diffusion prior of images of any size.

    A colour prior also denoises grey images (B, 1, H, W), because 15 % of its training images
    are grey. `symmetries` are the flips and rotations used to augment the training images.

    Arguments:
        channels: Image channels of the network, 3 or 1.
        widths: Feature channels per level of the UNet.
        blocks: Residual blocks per level.
        objective: What the network predicts: "edm", "eps", "v", or "flow" for the velocity of
            flow matching.
        schedule: Training levels of "eps" and "v": "linear" or "cosine", T = 1000.
        noise_mean: Mean of ln(sigma) of the training levels of "edm".
        noise_std: Standard deviation of ln(sigma) of the training levels of "edm".
        holes: Train a second network to fill holes: half of its training images have unknown
            pixels. Its input is a guess of them (`genprior.core.pull_push`) and the mask.
        unrolled: Have a third network for `denoise_unrolled`, which
            `benchmarks/train_unrolled.py` trains.

    Raises:
        ValueError: The objective or the schedule is unknown, or a size is out of its range.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (2, 2, 2, 4),
        objective: Objective = "edm",
        schedule: Literal["linear", "cosine"] = "linear",
        noise_mean: float = -2.7,
        noise_std: float = 1.1,
        holes: bool = False,
        unrolled: bool = False,
    ) -> None:
        super().__init__()
        if objective not in get_args(Objective):
            raise ValueError(
                f"objective must be one of {', '.join(get_args(Objective))}, got {objective!r}"
            )
        check_sizes(channels=channels, widths=widths, blocks=blocks)
        if len(blocks) != len(widths):
            raise ValueError(
                f"blocks must hold a number for each of the {len(widths)} widths, got "
                f"{list(blocks)}"
            )
        self.channels = channels
        self.symmetries = range(8)
        self._teacher: Denoiser | None = None
        self.objective = objective
        self._config = {
            "channels": channels,
            "widths": list(widths),
            "blocks": list(blocks),
            "objective": objective,
            "schedule": schedule,
            "noise_mean": noise_mean,
            "noise_std": noise_std,
            "holes": holes,
            "unrolled": unrolled,
        }
        self.is_inpainter, self.is_unrolled = holes, unrolled
        self.suits_schedules = channels == 3  # with digits they lost up to 0.9 dB
        # 10 % faster than the contiguous format on a CPU, more on a GPU
        self.network = UNet(channels, widths, blocks).to(memory_format=torch.channels_last)
        if holes:
            filler = UNet(channels, widths, blocks, holes=True)
            self.filler = filler.to(memory_format=torch.channels_last)
        if unrolled:
            network = UNet(channels, widths, blocks)
            self.unrolled = network.to(memory_format=torch.channels_last)
        self.receptive_radius, self.stride = self.network.receptive_radius, self.network.multiple
        levels = torch.as_tensor(ddpm_sigmas(schedule), dtype=torch.float32)
        self.register_buffer("levels", levels, persistent=False)

    @property
    def config(self) -> Mapping[str, Any]:
        return self._config

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        groups = {"network": self.network.parameters()}
        return groups | ({"filler": self.filler.parameters()} if self.is_inpainter else {})

    def inherit(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        for part in self.groups():
            prefix, own = f"{part}.", getattr(self, part).state_dict()
            old = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if old.keys() == own.keys() and any(old[k].shape != v.shape for k, v in own.items()):
                pruned = prune_unet(old, own)
                state = {**state, **{prefix + k: v for k, v in pruned.items()}}
        network = {k: v for k, v in state.items() if k.startswith("network.")}
        copies = {
            f"{part}.{k.removeprefix('network.')}": v
            for part in ("filler", "unrolled") for k, v in network.items()
        }
        return super().inherit(copies | dict(state))

    def distil(self, teacher: Denoiser) -> None:
        self.__dict__["_teacher"] = teacher  # not a submodule: its weights are not of this prior

    def preconditioning(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (c_skip, c_out, c_in) at level s in units of [-1, 1]; all of the shape of s."""
        if self.objective == "eps":
            return torch.ones_like(s), s, (1 + s**2).rsqrt()
        if self.objective == "flow":
            t = 1 / (1 + s)
            return t, s * t, t
        sd = SIGMA_DATA if self.objective == "edm" else 1.0
        total = s**2 + sd**2
        return sd**2 / total, s * sd * total.rsqrt(), total.rsqrt()

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self._denoise(self.network, x, sigma)

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        return self._denoise(self.filler, x, sigma, unknown)

    def denoise_unrolled(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self._denoise(self.unrolled, x, sigma)

    def _denoise(
        self, network: UNet, x: Tensor, sigma: float | Tensor, unknown: Tensor | None = None
    ) -> Tensor:
        channels = x.shape[1]
        x = to_network(x, self.channels)
        u, crop = pad_to_multiple(2 * x - 1, network.multiple)
        if unknown is not None:
            unknown, _ = pad_to_multiple(unknown, network.multiple)
        level, inputs = self._inputs(per_image(sigma, x), unknown)
        c_skip, c_out, c_in = self.preconditioning(2 * level)
        f = network(c_in * u, *inputs)
        x_hat = (c_skip * u + c_out * f)[crop].add(1).div(2)
        return from_network(x_hat, channels)

    def _inputs(
        self, sigma: Tensor, unknown: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the noise level of every pixel, and the inputs of F besides the image.

        Arguments:
            sigma: Noise level of the known pixels, in image units, shape (B, 1, 1, 1).
            unknown: 1 where a pixel is guessed, else 0, shape (B, 1, H, W), or None.
        """
        if unknown is None:
            return sigma, (sigma.clamp(*SIGMA_RANGE).log().flatten() / 4,)
        guess = GUESS_STD * density(1 - unknown).clamp(min=LEAST_DENSITY) ** -0.25
        level = torch.where(unknown > 0, torch.hypot(sigma, guess), sigma)
        # The level of the best guesses; that of the actual ones differs between tile and image.
        c_level = (sigma**2 + GUESS_STD**2).sqrt().clamp(*SIGMA_RANGE)
        return level, (c_level.log().flatten() / 4, unknown)

    def training_levels(self, x: Tensor, noise: Noise) -> Tensor:
        """Draws noise levels of the objective for images x, in image units, shape (B,)."""
        a, b = noise.uniform(x.new_empty(len(x), 2)).unbind(dim=1)
        if self.objective == "flow":
            return ((1 - a) / a.clamp(min=1e-6) / 2).clamp(*SIGMA_RANGE)
        if self.objective != "edm":
            return self.levels.to(x)[(len(self.levels) * a).long()]
        z = noise.normal(a)
        narrow = (self._config["noise_mean"] + self._config["noise_std"] * z).exp()
        low, high = map(math.log, SIGMA_RANGE)
        wide = (low + (high - low) * a).exp()
        return torch.where(b < WIDE_SHARE, wide, narrow).clamp(*SIGMA_RANGE)

    def losses(self, x: Tensor, noise: Noise) -> Mapping[str, Tensor]:
        return self._losses(self.groups(), x, noise)

    def losses_of(
        self, groups: Collection[str], x: Tensor, noise: Noise
    ) -> Mapping[str, Tensor]:
        every = set(groups) == set(self.groups())  # a subclass may change `losses`
        return self.losses(x, noise) if every else self._losses(groups, x, noise)

    def _losses(
        self, groups: Collection[str], x: Tensor, noise: Noise
    ) -> Mapping[str, Tensor]:
        sigma = per_image(self.training_levels(x, noise), x)
        grey = noise.uniform(x[:, :1, :1, :1]) < GREY_SHARE
        n = noise.normal(x)
        x = torch.where(grey, x.mean(dim=1, keepdim=True), x)
        n = torch.where(grey, n[:, :1], n)
        u = 2 * x - 1
        losses = {}
        if "network" in groups:
            u_noisy = u + 2 * sigma * n
            target = self._target(u, u_noisy, sigma, None, noise)
            losses["network"] = self._loss(target, u_noisy, sigma, None)
        if "filler" in groups:
            unknown, exact = training_holes(x, noise)
            sigma = sigma.masked_fill(exact, 0)
            u_noisy = pull_push(u + 2 * sigma * n, 1 - unknown)
            target = self._target(u, u_noisy, sigma, unknown, noise)
            losses["filler"] = self._loss(target, u_noisy, sigma, unknown)
        return losses

    def _target(
        self, u: Tensor, u_noisy: Tensor, sigma: Tensor, unknown: Tensor | None, noise: Noise
    ) -> Tensor:
        """Returns what to estimate: the clean images u, or a teacher's estimates of them.

        The teacher estimates each image in one view, drawn at random from the flips and turns
        that it allows: their mean is what the network learns.
        """
        teacher = self._teacher
        if teacher is None or not self.training:
            return u
        if unknown is not None and not teacher.is_inpainter:
            raise SettingError("the teacher has no inpainting network: train --only network")
        square = u.shape[-2] == u.shape[-1]
        views = [k for k in teacher.symmetries if square or k % 2 == 0]
        draws = (len(views) * noise.uniform(u[:, 0, 0, 0])).long().tolist()
        chosen = [views[k] for k in draws]
        x = _turn_each(u_noisy.add(1).div(2), chosen, turn)
        with torch.no_grad():
            if unknown is None:
                x_hat = teacher.denoise(x, sigma)
            else:
                x_hat = teacher.denoise_masked(x, sigma, _turn_each(unknown, chosen, turn))
        return 2 * _turn_each(x_hat, chosen, turn_back) - 1

    def _loss(self, u: Tensor, u_noisy: Tensor, sigma: Tensor, unknown: Tensor | None) -> Tensor:
        network = self.network if unknown is None else self.filler
        u, crop = pad_to_multiple(u, network.multiple)
        u_noisy, _ = pad_to_multiple(u_noisy, network.multiple)
        if unknown is not None:
            unknown, _ = pad_to_multiple(unknown, network.multiple)
        level, inputs = self._inputs(sigma, unknown)
        c_skip, c_out, c_in = self.preconditioning(2 * level)
        # exclude pixels known without noise from the loss
        weight = (level > 0).to(u).expand_as(u)[crop]
        target = (u - c_skip * u_noisy) / c_out.clamp(min=SIGMA_RANGE[0])
        f = network(c_in * u_noisy, *inputs)
        errors = (weight * (f.float() - target)[crop].square()).flatten(1).sum(dim=1)
        return (errors / weight.flatten(1).sum(dim=1).clamp(min=1)).mean()


def _turn_each(x: Tensor, views: Sequence[int], turned: Callable[..., Tensor]) -> Tensor:
    """Applies `turned`, `turn` or `turn_back`, to each image (C, H, W) with its own view."""
    return torch.cat([turned(one, k) for one, k in zip(x.split(1), views, strict=True)])


def training_holes(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Draws the unknown pixels of training images: none, scattered ones, a box, or blobs.

    Arguments:
        x: Images, shape (B, C, H, W).
        noise: Random numbers.

    Returns:
        1 where a pixel is unknown, else 0, shape (B, 1, H, W); and whether the known pixels of
        an image are without noise, bool, shape (B, 1, 1, 1).
    """
    height, width = x.shape[-2:]
    draws = noise.uniform(x.new_empty(len(x), 8, 1, 1))
    share, kind, exact, rate, *box = draws.split(1, dim=1)
    scattered = noise.uniform(x[:, :1]) < 0.02 + 0.96 * rate

    rough = noise.uniform(x.new_empty(len(x), 1, height // BLOB_SIZE + 2, width // BLOB_SIZE + 2))
    smooth = interpolate(rough, scale_factor=BLOB_SIZE, mode="bilinear")[..., :height, :width]
    blobs = smooth < 0.2 + 0.35 * rate

    rows = torch.arange(height, device=x.device).to(x).reshape(-1, 1)
    columns = torch.arange(width, device=x.device).to(x)
    top, left, tall, wide = box
    tall, wide = (0.05 + 0.6 * tall) * height, (0.05 + 0.6 * wide) * width
    down, right = rows - top * (height - tall), columns - left * (width - wide)
    hole = (down >= 0) & (down < tall) & (right >= 0) & (right < wide)

    unknown = torch.where(kind < 0.6, scattered, torch.where(kind < 0.8, hole, blobs))
    unknown = unknown & (share < HOLES_SHARE)
    exact = (exact < EXACT_SHARE) & unknown.flatten(1).any(dim=1).reshape(-1, 1, 1, 1)
    return unknown.to(x), exact
