"""Estimation of the law of camera noise from one image: level, correlation, signal dependence.

Noise is everywhere in an image, texture is not. So the flattest patches show the noise: their
residual from a plane has its autocovariance. They are taken at four ranges of intensity, since
the noise of dark and of bright pixels may differ. Where even the energies of the flattest patches
differ much from each other, they show texture, and are not used.

Noise is taken as correlated if, moreover, the level of white noise of maximum likelihood
(`api.noise_level`) explains only a small part of it: correlated noise is smooth, so that a prior
for white noise takes most of it as a part of the image. If white noise can be seen, what else is
in the flattest patches may be texture. Texture is alike in all channels; so then noise is taken
as correlated if its neighbours are more alike than its channels, and what the channels have in
common is taken away from it.

References:
    Multiscale Image Blind Denoising, Lebrun, Colom and Morel, 2015 (flat patches).
    Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data, Foi et
        al., 2008 (level against intensity).
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, unfold

from genprior.api.noise_level import assumed_noise
from genprior.core.errors import SettingError
from genprior.inverse.base import Solver
from genprior.operators.base import Operator
from genprior.operators.noise_models import (
    CorrelatedNoise,
    GaussianNoise,
    SignalDependentNoise,
    noise_law,
)
from genprior.operators.whitened import Whitened, WhitenedNonlinear, whitened
from genprior.priors.base import Gaussian

# Side of the patches, their smallest spacing and largest number; largest lag, in pixels.
PATCH, SPACING, MOST_PATCHES, LAGS = 16, 4, 20000, 7
# Fewest patches of an image.
ENOUGH = 100
# Ranges of intensity with equally many patches, the share that is flat, and the fewest patches.
RANGES, FLAT, FEWEST = 4, 0.05, 4
# Energies of flat patches of a range may differ by this factor, largest to the first fifth.
SPREAD = 1.6
# Values this near to 0 and 1 may be clipped; a patch with a larger share of them is not used.
CLIPPED, SHARE_CLIPPED = 0.01, 0.02
# Noise is correlated from this correlation of neighbours on, if its level is this many times the
# level of white noise, and if white noise cannot be seen. If it can, the correlation of neighbours
# must be larger than LEAST_CORRELATION, and than that of the channels by OVER_CHANNELS: in
# 24 crops of training photos with white noise 0, 0.01 and 0.02 it was larger by at most 0.1, with
# noise 0.05 filtered by a box of 3 x 3 or 2 x 2 pixels by more than 0.2 in 20 and 17 of them.
CORRELATION, OVER_WHITE = 0.5, 2.0
LEAST_CORRELATION, OVER_CHANNELS = 0.4, 0.2
# Texture is not everywhere: the quietest patches of the image must have this share of the level,
# and if white noise cannot be seen, this many ranges of intensity must show the noise. Of 17
# training photos without noise that passed the other rules these rejected 7, and 9 of 15 JPEG
# files of qualities 50, 75 and 90; of 28 files of qualities 75 and 90 with noise of 0.02 one.
QUIET, FEWEST_RANGES = 0.25, 2
# Noise whose channels have a higher correlation may be texture, which gives a warning: eight
# photos of noisy cameras had 0.30 to 0.85, and six of the 16 clean training photos (of 48) that
# passed the other rules 0.88 to 0.96, among them the strongest.
ALIKE = 0.87
# Radius in pixels of the mean from which the variance of signal-dependent noise is computed.
LOCAL = 2
# The second pass over an image with noise that depends on the signal: share of the measurement in
# its combination with the estimate, and least level of the stabilised noise. On crops of training
# photos shares of 0.5 and 0.7 gained 0.27 and 0.22 dB at 5 counts for white, 0.06 dB both at 10,
# lost 0.03 and 0.00 dB at 20, and 0.07 and 0.04 dB at 30 (4 crops of 96 x 96); 10 counts have a
# level of 0.19, 20 counts 0.13.
SHARE, LEAST_SECOND = 0.6, 0.15
# Side of the simulated noise that calibrates the level; lags from which the window falls.
SIMULATED, FULL_LAGS = 192, 3
# Level in image units below which noise cannot be seen.
UNSEEN = 1 / 255
# White part of the estimated noise, relative to its level.
WHITE_PART = 0.1
# Ratio of the levels at dark and bright pixels that is reported, and correlations that are.
UNEVEN, REPORTED = 1.25, 0.1


@dataclass(frozen=True)
class CameraNoise:
    """Estimated noise of one image.

    Arguments:
        autocovariance: E[n_c(p) n_d(p + t)], shape (C, C, 15, 15).
        level: Root mean square in image units.
        correlation: Mean correlation of horizontal and vertical neighbours.
        between_channels: Mean correlation of two channels of a pixel; 1 for one channel.
        intensities: Mean values of the flat patches, from dark to bright.
        levels: Noise levels at these values.
        quietest: Level of the flattest patches of all, one in a thousand.
    """

    autocovariance: Tensor
    level: float
    correlation: float
    between_channels: float
    intensities: tuple[float, ...]
    levels: tuple[float, ...]
    quietest: float

    @classmethod
    def of_autocovariance(
        cls, c: Tensor, intensities: tuple[float, ...], levels: tuple[float, ...],
        quietest: float,
    ) -> "CameraNoise":
        """Returns the noise with an autocovariance, see the class."""
        own = c.diagonal(dim1=0, dim2=1).mean(dim=-1)
        variance = own[LAGS, LAGS].item()
        neighbours = (own[LAGS, LAGS + 1] + own[LAGS + 1, LAGS]).item() / 2
        return cls(
            c, variance**0.5, neighbours / variance, _between_channels(c[:, :, LAGS, LAGS]),
            intensities, levels, quietest,
        )

    def correlated(self, white: float) -> "CameraNoise | None":
        """Returns the noise if it is correlated, else None.

        Arguments:
            white: Level of the white noise of maximum likelihood.
        """
        if white < UNSEEN:
            found = self
            is_noise = self.correlation > CORRELATION and len(self.levels) >= FEWEST_RANGES
        else:
            found = self.without_texture()
            is_noise = self.correlation > max(
                LEAST_CORRELATION, self.between_channels + OVER_CHANNELS
            )
        is_noise &= self.quietest > QUIET * self.level  # noise is everywhere
        return found if is_noise and found.level > OVER_WHITE * white else None

    def without_texture(self) -> "CameraNoise":
        """Returns the noise without what the channels have in common."""
        count = len(self.autocovariance)
        own = self.autocovariance.diagonal(dim1=0, dim2=1).movedim(-1, 0)
        common = (self.autocovariance.sum(dim=(0, 1)) - own.sum(dim=0)) / max(
            count * (count - 1), 1
        )
        c = torch.zeros_like(self.autocovariance)
        c[range(count), range(count)] = own - common
        variance = c[range(count), range(count), LAGS, LAGS].mean().clamp(min=0).item()
        return replace(self, autocovariance=c, level=variance**0.5, between_channels=0.0)

    def describe(self) -> str:
        """Returns the properties in words.

        >>> c = torch.eye(3)[..., None, None] * 1e-4 * torch.ones(3, 3, 15, 15)
        >>> CameraNoise(c, 0.01, 1, 1, (0.2, 0.8), (0.02, 0.01), 0.01).describe()
        'correlated over 7 px, stronger in the dark'
        """
        text = f"correlated over {self.reach()} px"
        if len(self.levels) > 1:
            if self.levels[0] > UNEVEN * self.levels[-1]:
                text += ", stronger in the dark"
            if self.levels[-1] > UNEVEN * self.levels[0]:
                text += ", stronger in the light"
        return text

    def reach(self) -> int:
        """Returns the largest distance in pixels with a correlation above 0.1."""
        c = self.autocovariance.diagonal(dim1=0, dim2=1).mean(dim=-1)
        middle = c.shape[-1] // 2
        line = (c[middle, middle:] + c[middle:, middle]) / (2 * c[middle, middle])
        near = (line < REPORTED).nonzero().flatten().tolist()
        return max(near[0] - 1 if near else middle, 1)


@dataclass(frozen=True)
class Measured:
    """Noise of a batch of measurements: its level, and its law if it is not white.

    Arguments:
        level: Noise level, a number or one per image; of y after `forward`.
        law: The law; None if all noise is white.
        correlated: Which images have noise that is not white.
        found: What was found out about the noise of each image, in words; "" for white noise.
        doubts: Warnings, one sentence each.
        signal: Noise that depends on the signal; then `forward` makes its variance constant, and
            `backward` is its unbiased inverse.
    """

    level: Any
    law: GaussianNoise | None = None
    correlated: tuple[bool, ...] = ()
    found: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    signal: SignalDependentNoise | None = None

    def is_correlated(self, image: int) -> bool:
        """Returns whether the noise of an image is not white."""
        return bool(self.correlated) and self.correlated[image]

    def whitened(
        self, operator: Operator, plain: bool
    ) -> Whitened | WhitenedNonlinear | None:
        """Returns the operator of whitened measurements; None if all noise is white.

        Arguments:
            operator: The operator of the measurements.
            plain: Whether a noisy image is left as it is, for solvers that take it so.

        Raises:
            SettingError: The noise is correlated between pixels and there are holes.
        """
        plain = plain and operator.is_identity
        return None if self.law is None else whitened(operator, self.law, plain)

    def white(self, y: Tensor) -> "Measured":
        """Returns white noise of the same level, for methods that use no law."""
        if self.signal is not None:
            return Measured(self.signal.at(y).level(y))
        return Measured(self.level, doubts=self.doubts)

    def passes(self, method: Solver) -> int:
        """Returns how often a solver denoises an image, see `second_pass`."""
        if self.signal is None or method.stochastic or self.level < LEAST_SECOND:
            return 1
        return method.stabilised_passes

    def second_pass(self, y: Tensor, x: Tensor) -> tuple[Tensor, "Measured"]:
        """Returns the combination of a noisy image and its estimate, and its noise.

        A transform stabilises the variance of this combination better than that of the noisy
        image, since its mean count is higher at the same signal (Azzari and Foi, 2016).

        Arguments:
            y: The noisy image, before `forward`.
            x: The estimate, after `backward`.
        """
        signal = cast(SignalDependentNoise, self.signal).scaled(SHARE)
        black, white = _ends(signal, y)
        return SHARE * y + (1 - SHARE) * x, Measured(1 / (white - black).item(), signal=signal)

    def forward(self, y: Tensor) -> Tensor:
        """Returns y after the variance-stabilising transform, with black at 0 and white at 1."""
        if self.signal is None:
            return y
        black, white = _ends(self.signal, y)
        return (self.signal.stabilise(y) - black) / (white - black)

    def backward(self, z: Tensor) -> Tensor:
        """Returns the image of a stabilised image."""
        if self.signal is None:
            return z
        black, white = _ends(self.signal, z)
        return self.signal.unstabilise(z * (white - black) + black)


def measured_noise(
    noise_std: Any, y: Tensor, operator: Operator, prior: object
) -> Measured:
    """Returns the noise of measurements; estimates it for "auto".

    Arguments:
        noise_std: As given to `restore`: a number, one per image, "auto", or a law, also as text;
            or what this function returned.
        y: Measurements, shape (B, ...).
        operator: Their operator.
        prior: Used to estimate the level.

    Raises:
        SettingError: `noise_std` is another string, the noise cannot be estimated, or the law
            does not fit the measurements.
    """
    if isinstance(noise_std, Measured):
        return noise_std
    if isinstance(noise_std, str) and "=" in noise_std:
        noise_std = noise_law(noise_std)
    if isinstance(noise_std, SignalDependentNoise):
        return _signal_dependent(noise_std, y, operator)
    if isinstance(noise_std, GaussianNoise):
        level = noise_std.level(y)
        if noise_std.is_white:
            return Measured(level)
        white = whitened(operator, noise_std)
        white.check(y)
        return Measured(level, noise_std, (True,) * len(y), ("",) * len(y))
    if not isinstance(noise_std, str):
        return Measured(noise_std)
    level = assumed_noise(noise_std, y, operator, prior)
    any_size = getattr(prior, "receptive_radius", None) is not None
    if not operator.is_identity or not any_size or isinstance(prior, Gaussian):
        return Measured(level, found=("",) * len(y))
    return _estimated(level, y)


def _estimated(white: Tensor, y: Tensor) -> Measured:
    """Returns the noise of images, given the levels of white noise of maximum likelihood."""
    seen = [camera_noise(image) for image in y.detach().float().split(1)]
    found = [
        None if one is None else one.correlated(sigma)
        for one, sigma in zip(seen, white.tolist(), strict=True)
    ]
    doubts = tuple(
        f"image {i}: hardly any white noise was found, and no part is flat enough to show noise "
        f"of another kind: if the image looks noisy, give noise_std"
        for i, one in enumerate(seen)
        if one is None and white[i] < UNSEEN and _least_energy(y[i : i + 1]) > UNSEEN**2
    ) + tuple(
        f"image {i}: the noise that was found is alike in red, green and blue, as fine texture "
        f"(grass, cloth) is, and may be some: if details are lost, give noise_std"
        for i, one in enumerate(found)
        if one is not None and y.shape[1] > 1 and one.between_channels > ALIKE
    )
    if not any(found):
        return Measured(white, found=("",) * len(found), doubts=doubts)
    level = white.clone()
    for i, one in enumerate(found):
        level[i] = white[i] if one is None else one.level
    return Measured(
        level, noise_model(found, white, y.shape[1]), tuple(one is not None for one in found),
        tuple("" if one is None else one.describe() for one in found),
        doubts,
    )


def _signal_dependent(noise: SignalDependentNoise, y: Tensor, operator: Operator) -> Measured:
    if operator.is_identity:
        black, white = _ends(noise, y)
        return Measured(1 / (white - black).item(), signal=noise)
    smooth = operator.is_linear or operator.is_pointwise
    if y.ndim != 4 or min(y.shape[-2:]) < 2 * LOCAL + 1 or not smooth:
        raise SettingError(
            "noise that depends on the signal is not supported for these measurements: give a "
            "noise level"
        )
    # the mean around a pixel is less noisy than the pixel
    mean = avg_pool2d(y.float(), 2 * LOCAL + 1, 1, LOCAL, count_include_pad=False)
    law = noise.at(mean)
    return Measured(law.level(y), law, (True,) * len(y), ("",) * len(y))


def _ends(noise: SignalDependentNoise, like: Tensor) -> tuple[Tensor, Tensor]:
    black, white = noise.stabilise(like.new_tensor([0.0, 1.0]))
    return black, white


def camera_noise(y: Tensor) -> CameraNoise | None:
    """Estimates the noise of an image from its flattest patches, without a prior.

    Arguments:
        y: One image, shape (1, C, H, W).

    Returns:
        The noise; None if the image is too small, has no flat part that is not clipped, or has
        constant flat parts in a channel.
    """
    groups = _flat_groups(y)
    if not groups:
        return None
    energies = torch.stack([flat.square().mean() for flat, _ in groups])
    shapes = torch.stack([_autocovariance(flat) / flat.square().mean() for flat, _ in groups])
    # geometric: on simulated camera noise a third less scatter of the level than the mean
    c = energies.log().mean().exp() * shapes.mean(dim=0)
    if not (c[:, :, LAGS, LAGS].diagonal() > 0).all():
        return None
    c = c * _calibration(c)
    return CameraNoise.of_autocovariance(
        c,
        tuple(mean for _, mean in groups),
        tuple(flat.square().mean().sqrt().item() for flat, _ in groups),
        _quietest(y),
    )


def _quietest(y: Tensor) -> float:
    levels = _patches(y)[0].square().flatten(1).mean(dim=1).sqrt().sort().values
    return levels[len(levels) // 1000].item()


def _between_channels(c: Tensor) -> float:
    """Returns the mean correlation of two channels, of a covariance (C, C); 1 for one channel."""
    count, std = len(c), c.diagonal().sqrt()
    if count == 1:
        return 1.0
    return ((c / (std[:, None] * std)).sum().item() - count) / (count * (count - 1))


def _flat_groups(y: Tensor) -> list[tuple[Tensor, float]]:
    """Returns the flattest patches in each range of intensity, and their mean values."""
    p, mean = _patches(y)
    if len(p) < ENOUGH:
        return []
    energy = p.square().flatten(1).mean(dim=1)
    groups = []
    for part in mean.argsort().tensor_split(RANGES):
        count = max(round(FLAT * len(part)), FEWEST)
        flat = part[energy[part].argsort()[:count]]
        lowest, highest = energy[flat[count // 5]], energy[flat[-1]]
        if 0 < highest < SPREAD * lowest:
            groups.append((p[flat], mean[flat].mean().item()))
    return groups


def _least_energy(y: Tensor) -> float:
    """Returns the mean square of the flattest patch that is not clipped; 0 if there is none."""
    p, _ = _patches(y.float())
    return p.square().flatten(1).mean(dim=1).min().item() if len(p) >= ENOUGH else 0.0


def _calibration(c: Tensor) -> float:
    """Returns the variance of noise over what the flattest patches show of it, by simulation.

    The flattest patches have less noise than the others, and planes take a part of it away.
    """
    white = torch.randn(
        (1, len(c), SIMULATED, SIMULATED), generator=torch.Generator().manual_seed(0)
    ).to(c)
    n = CorrelatedNoise(c).colour(white)
    middle = (n - n.mean()) * (0.1 / n.std()) + 0.5  # not clipped
    groups = _flat_groups(middle)
    seen = torch.stack([flat.square().mean() for flat, _ in groups]).mean() if groups else 0.01
    return 0.01 / float(seen)


def noise_model(found: list[CameraNoise | None], white: Tensor, channels: int) -> CorrelatedNoise:
    """Returns the noise of a batch, of which some images have correlated noise.

    Arguments:
        found: The noise of each image; None for white noise.
        white: Levels of the white noise of the other images, shape (B,).
        channels: Number of channels.
    """
    rows = []
    for one, level in zip(found, white.tolist(), strict=True):
        c = torch.zeros(channels, channels, 2 * LAGS + 1, 2 * LAGS + 1)
        if one is None:
            c[range(channels), range(channels), LAGS, LAGS] = level**2
        else:
            c = one.autocovariance.cpu().float().clone()
            c[range(channels), range(channels), LAGS, LAGS] += (WHITE_PART * one.level) ** 2
        rows.append(c)
    return CorrelatedNoise(torch.stack(rows))


def _patches(y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns patches minus their planes, (N, C, 16, 16), and their mean values, (N,)."""
    height, width = y.shape[-2:]
    if min(height, width) < PATCH:
        return y.new_zeros(0, y.shape[1], PATCH, PATCH), y.new_zeros(0)
    spacing = max(SPACING, round((height * width / MOST_PATCHES) ** 0.5))
    p = unfold(y.float(), PATCH, stride=spacing)[0].T.reshape(-1, y.shape[1], PATCH, PATCH)
    clipped = ((p < CLIPPED) | (p > 1 - CLIPPED)).float().flatten(1).mean(dim=1)
    p = p[clipped <= SHARE_CLIPPED]
    mean = p.mean(dim=(-1, -2), keepdim=True)
    t = torch.arange(PATCH).to(p) - (PATCH - 1) / 2
    t = t / (t.norm() * PATCH**0.5)
    flat = p - mean
    down = (flat * t[:, None]).sum(dim=(-1, -2), keepdim=True)
    right = (flat * t).sum(dim=(-1, -2), keepdim=True)
    return flat - down * t[:, None] - right * t, mean.mean(dim=(1, 2, 3))


def _autocovariance(p: Tensor) -> Tensor:
    """Returns the mean autocovariance of patches, with a window, (C, C, 15, 15)."""
    size = (2 * PATCH, 2 * PATCH)
    f = torch.fft.fft2(p, s=size)
    c = torch.fft.ifft2((f[:, :, None].conj() * f[:, None]).mean(dim=0)).real
    c = c.roll((LAGS, LAGS), (-2, -1))[..., : 2 * LAGS + 1, : 2 * LAGS + 1]
    t = torch.arange(-LAGS, LAGS + 1).to(p).abs()
    count, window = PATCH - t, ((LAGS + 1 - t) / (LAGS + 1 - FULL_LAGS)).clamp(max=1)
    return c / (count[:, None] * count) * (window[:, None] * window)
