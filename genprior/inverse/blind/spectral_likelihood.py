"""Likelihood of a blur kernel from the power spectrum of the blurred image.

The power spectrum of photos falls with the frequency f as c / |f|^alpha. A blurred photo with
white noise of level sigma has the spectrum

    S_k(f) = c |k^(f)|^2 / |f|^alpha + sigma^2

and its periodogram P is nearly exponentially distributed around it, so that

    log p(y | k) = - sum over f of (log S_k(f) + P(f) / S_k(f)),    maximised over c

The zeros of k^ make this sharp: the length and the angle of a motion and the radius of a disc are
found to a few per cent. The phase of k^ is not seen: a kernel and its mirror image are equal.

References:
    Estimation and Information in Stationary Time Series, Whittle, 1953.
    Relations between the Statistics of Natural Images and the Response Properties of Cortical
        Cells, Field, 1987 (power law).
    Direct Method for Restoration of Motion-Blurred Images, Yitzhaky et al., 1998 (blur from
        spectra).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fft import fftfreq, rfft2, rfftfreq

# alpha; the lowest frequency in cycles per pixel: below it one image is no sample of the law.
FALL, LOWEST = 2.2, 0.02
# Largest number of frequencies, drawn at random: more take longer and decide no more.
FREQUENCIES = 3000
# Newton steps for log c, the largest step, and the one below which no further one is made.
STEPS, STRIDE, CONVERGED = 15, 2.0, 1e-4
# Least noise level: rounding to 8 bits.
FLOOR = 1 / 255 / 12**0.5
# Frequencies of both axes above this show the noise of a blurred image.
NOISY = 0.35


class Parametric(NamedTuple):
    """A kernel of a family, with its parameters.

    `kind` is "gaussian" (std), "motion" (length, angle in degrees) or "disc" (radius), in pixels.
    """

    kind: str
    parameters: tuple[float, ...]
    log_likelihood: float


class SpectralLikelihood:
    """Log-likelihood per frequency of blur kernels, given one image.

    Arguments:
        y: Grey image, shape (1, 1, H, W).
        noise_std: Level of white noise of y; None estimates it from the highest frequencies, which
            shows the noise of blurred images only.
    """

    def __init__(self, y: Tensor, noise_std: float | None = None) -> None:
        y = y.detach().cpu().double()
        height, width = y.shape[-2:]
        window = _hann(height)[:, None] * _hann(width)
        power = rfft2((y - y.mean()) * window)[0, 0].abs().square() / window.square().sum()
        v, u = fftfreq(height).double()[:, None], rfftfreq(width).double()[None]
        v, u = v.expand_as(power), u.expand_as(power)
        corner = power[(v.abs() > NOISY) & (u > NOISY)]
        if noise_std is None:
            noise_std = corner.mean().sqrt().item() if corner.numel() else 0.0
        self.noise_std = max(noise_std, FLOOR)
        used = (torch.hypot(v, u) > LOWEST).flatten().nonzero().flatten()
        order = torch.randperm(len(used), generator=torch.Generator().manual_seed(0))
        used = used[order[:FREQUENCIES]]
        self.power, self.v, self.u = (t.flatten()[used] for t in (power, v, u))
        self.f = torch.hypot(self.v, self.u)

    def __call__(self, gain: Tensor) -> Tensor:
        """Returns the mean log-likelihood for |k^|^2 at the frequencies, (M, F), shape (M,)."""
        shape, noise = gain / self.f**FALL, self.noise_std**2
        log_c = torch.full((len(gain), 1), math.log(1e-4)).double()
        for _ in range(STEPS):
            model = log_c.exp() * shape + noise
            share = log_c.exp() * shape / model
            slope = (share * (self.power / model - 1)).sum(dim=1, keepdim=True)
            curvature = share.square().sum(dim=1, keepdim=True).clamp(min=1e-30)
            step = (slope / curvature).clamp(-STRIDE, STRIDE)
            log_c = log_c + step
            if step.abs().max() < CONVERGED:
                break
        model = log_c.exp() * shape + noise
        return -(model.log() + self.power / model).mean(dim=1)

    def of_kernel(
        self, kernel: Tensor, turns: Sequence[float] = (0.0,), scales: Sequence[float] = (1.0,)
    ) -> Tensor:
        """Returns the log-likelihoods of a kernel, turned and enlarged.

        Arguments:
            kernel: Shape (h, w).
            turns: Angles in degrees, counter-clockwise.
            scales: Factors of its size, as many as `turns`.
        """
        k = kernel.detach().cpu().double()
        rows, columns = (2 * math.pi * torch.arange(n).double() for n in k.shape)
        gains = []
        for turn, scale in zip(turns, scales, strict=True):
            c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            u, v = scale * (c * self.u - s * self.v), scale * (s * self.u + c * self.v)
            down, across = v[:, None] * rows, u[:, None] * columns
            even, odd = down.cos() @ k, down.sin() @ k
            real = even * across.cos() - odd * across.sin()
            imaginary = even * across.sin() + odd * across.cos()
            gains.append(real.sum(dim=1).square() + imaginary.sum(dim=1).square())
        return self(torch.stack(gains))

    def best(self, kind: str, largest: float) -> Parametric:
        """Returns the most likely kernel of a family; its diameter is at most `largest`.

        Arguments:
            kind: "gaussian", "motion" or "disc".
            largest: Largest width of the kernel in pixels; that of a Gaussian is 4 times its std.
        """
        families: dict[str, Callable[[float], Parametric]] = {
            "gaussian": self._gaussian, "motion": self._motion, "disc": self._disc,
        }
        return families[kind](largest)

    def _gaussian(self, largest: float) -> Parametric:
        def gain(std: Tensor) -> Tensor:
            return torch.exp(-((2 * math.pi * std[:, None] * self.f) ** 2))

        std = torch.arange(0.3, max(largest / 4, 0.6), 0.1).double()
        return self._refined("gaussian", gain, std, 0.1)

    def _disc(self, largest: float) -> Parametric:
        def gain(radius: Tensor) -> Tensor:
            z = 2 * math.pi * radius[:, None] * self.f
            return (2 * torch.special.bessel_j1(z) / z).square() * self._pixel()

        radius = torch.arange(0.75, max(largest / 2, 1.5), 0.25).double()
        return self._refined("disc", gain, radius, 0.25)

    def _refined(
        self, kind: str, gain: Callable[[Tensor], Tensor], values: Tensor, step: float
    ) -> Parametric:
        centre = values[self(gain(values)).argmax()]
        fine = centre + step * torch.linspace(-0.8, 0.8, 9).double()
        scores = self(gain(fine))
        return Parametric(kind, (round(fine[scores.argmax()].item(), 3),), scores.max().item())

    def _motion(self, largest: float) -> Parametric:
        angles, lengths = torch.arange(0, 180, 6.0).double(), torch.arange(2, largest + 1).double()
        found = Parametric("motion", (1.0, 0.0), -math.inf)
        for length in lengths:
            found = self._better_motion(found, length.expand_as(angles), angles)
        for spread in (1.0, 0.25):
            length, angle = found.parameters
            near = torch.linspace(-1, 1, 5).double()
            grid = torch.cartesian_prod(length + spread * near, angle + 4 * spread * near)
            found = self._better_motion(found, grid[:, 0].clamp(1, largest), grid[:, 1])
        length, angle = found.parameters
        return found._replace(parameters=(round(length, 2), round(angle % 180, 1)))

    def _better_motion(self, found: Parametric, length: Tensor, angle: Tensor) -> Parametric:
        c, s = torch.deg2rad(angle).cos()[:, None], torch.deg2rad(angle).sin()[:, None]
        along, across = c * self.u - s * self.v, s * self.u + c * self.v
        gain = (torch.sinc(length[:, None] * along) * torch.sinc(across)).square() * self._pixel()
        scores = self(gain)
        best = int(scores.argmax())
        if scores[best] <= found.log_likelihood:
            return found
        return Parametric(
            "motion", (length[best].item(), angle[best].item()), scores[best].item()
        )

    def _pixel(self) -> Tensor:
        """Returns |k^|^2 of the square of a pixel."""
        return (torch.sinc(self.u) * torch.sinc(self.v)).square()


def _hann(n: int) -> Tensor:
    # n + 2 points without the zeros at both ends, so that one pixel has weight 1
    return torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1]
