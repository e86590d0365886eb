"""Phase retrieval: magnitudes of Fourier transforms, their phases are lost.

    y = |F P x|                      P pads the image with zeros: oversampling
    y_k = |F (m_k x)|                m_k are known random masks: coded diffraction patterns

F is the unitary discrete Fourier transform. From oversampled magnitudes alone an image and the
same image turned by 180 degrees cannot be told apart; masks tell them apart. The padding is known,
so that a translation is seen.

The start of iterative solvers is found without a prior, for each channel alone, by relaxed
averaged alternating reflections, with the map M to the magnitudes and S to images in [0, 1],

    M x = L^+ (y exp(i arg L x)),   x <- b / 2 (R_S R_M + I) x + (1 - b) M x,   R = 2 (map) - I

from several random images; masks need one, and alternating projections x <- S M x. What is found
may be the half turn of another: all channels of all are turned as one, by correlation. The mean
of those that fit about as well as the best is the start. With noise each has details of its own
that fit the noise, and the mean loses them: on six crops of training photos with noise 0.05 it had
23.4 dB per channel, one result 21.0 dB.

The proximal map is found by majorisation: since | |a| - y | <= |a - y e| for all |e| = 1, with
equality for the phase of a, each step

    u <- argmin_v ||L v - y exp(i arg L u)||^2 + rho ||v - x||^2

never raises the objective, whatever u. L^T L is diagonal, so that a step is two Fourier
transforms. The linear model of Gauss-Newton steps holds only where no magnitude is near 0:
without damping they raised the misfit, and `hqs` had 25.8 dB with them and 26.7 dB so (six crops
of training photos). Damped ones, as in `nonlinear.py`, were not compared on photos.

References:
    Phase Retrieval Algorithms: a Comparison, Fienup, 1982.
    Relaxed Averaged Alternating Reflections for Diffraction Imaging, Luke, 2005.
    High-Resolution Ab Initio Three-Dimensional X-ray Diffraction Microscopy, Chapman et al., 2006
        (mean of several results).
    prDeep: Robust Phase Retrieval with a Flexible Deep Network, Metzler et al., 2018 (a
        classical start, then a denoiser).
    Phase Retrieval from Coded Diffraction Patterns, Candes, Li and Soltanolkotabi, 2015.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.fft import fft2, ifft2

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.operators.cache import SharedCache
from genprior.operators.nonlinear import NonlinearOperator

# Of the start: random images, iterations from each, the number of them that are alternating
# projections at the end, and b.
TRIALS, ITERATIONS, FINAL, RELAXATION = 4, 150, 20, 0.9
# The mean is of results whose misfit is at most this multiple of the least: without noise of those
# that explain the measurement, with noise of nearly all.
NEARLY = 1.1
# Majorisation steps of a proximal map.
STEPS = 5


class FourierMagnitude(NonlinearOperator):
    """Magnitude of a complex linear map L, y = |L x|."""

    measures_images = False

    @abstractmethod
    def field(self, x: Tensor) -> Tensor:
        """Returns L x, complex, of the shape of a measurement, for x on the grid of `padded`."""

    @abstractmethod
    def back(self, field: Tensor) -> Tensor:
        """Returns the real part of L^+ applied to a field, on the grid of `padded`."""

    @abstractmethod
    def padded(self, x: Tensor) -> Tensor:
        """Returns images x (B, C, H, W) on the grid of L."""

    @abstractmethod
    def energy(self, x: Tensor) -> float | Tensor:
        """Returns the diagonal of L^T L for images x, a number or shape (H, W)."""

    def A(self, x: Tensor) -> Tensor:
        return self.field(self.padded(x)).abs()

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """Lowers ||A(u) - y||^2 + rho ||u - x||^2 from u = x, by steps of majorisation."""
        rows, columns = x.shape[-2:]
        with torch.no_grad():
            weight, energy, u = per_image(rho, x), self.energy(x), x
            for _ in range(STEPS):
                fit = self.back(_with_phase(y, self.field(self.padded(u))))[..., :rows, :columns]
                u = (energy * fit + weight * x) / (energy + weight)
        return u

    def pinv(self, y: Tensor) -> Tensor:
        # Gauss-Newton steps: from a start that fits, they converge to data without noise
        return NonlinearOperator.prox(self, self.expansion_point(y), y, 0.0)

    def expansion_point(self, y: Tensor, start: int = 0) -> Tensor:
        with torch.no_grad():
            if not self.has_several_minima:
                return self._searched(y, start)
            trials = range(start * TRIALS, (start + 1) * TRIALS)
            found = torch.stack([self._searched(y, trial) for trial in trials])
            misfits = torch.stack([(self.A(x) - y).square().mean((-2, -1)).sqrt() for x in found])
            best = misfits[..., 0].argmin(dim=0)
            first = found[best, torch.arange(len(y), device=y.device), :1]
            fits = (misfits <= NEARLY * misfits.amin(dim=0))[..., None, None].to(y)
            return (fits * _alike(found, first)).sum(dim=0) / fits.sum(dim=0)

    def _searched(self, y: Tensor, seed: int) -> Tensor:
        """Returns images whose measurement is near y, found from a random image."""
        shape = self.image_shape(y.shape)
        # the same for every image: the result must not depend on the batch
        generator = torch.Generator().manual_seed(seed)
        first = torch.rand(shape[1:], generator=generator, dtype=torch.float64)
        x = self.padded(first.to(y).expand(shape))
        inside = self.padded(torch.ones_like(y[:1, :1, :1, :1]).expand(1, 1, *shape[2:])) > 0
        for k in range(ITERATIONS):
            z = self.back(_with_phase(y, self.field(x)))
            if k < ITERATIONS - FINAL and self.has_several_minima:
                turned = 2 * z - x
                turned = 2 * torch.where(inside, turned.clamp(0, 1), 0) - turned
                x = RELAXATION / 2 * (turned + x) + (1 - RELAXATION) * z
            else:
                x = torch.where(inside, z.clamp(0, 1), 0)
        return x[..., : shape[-2], : shape[-1]]


class PhaseRetrieval(FourierMagnitude, nn.Module):
    """Magnitude of the oversampled Fourier transform; y is (B, C, r H, r W).

    Arguments:
        oversampling: r >= 1, the ratio of the sides of y and x. From 2 on, the autocorrelation of
            the image is known. "oversample 2.0" in the programs of DPS and DAPS is 1.5 here.

    Raises:
        SettingError: The ratio is below 1 or not finite.
    """

    has_several_minima = True

    def __init__(self, oversampling: float = 2.0) -> None:
        super().__init__()
        if not 1 <= oversampling < float("inf"):
            raise SettingError(f"oversampling must be at least 1 and finite, got {oversampling}")
        self.oversampling = oversampling

    def energy(self, x: Tensor) -> float | Tensor:
        return 1.0

    def field(self, x: Tensor) -> Tensor:
        return fft2(x, norm="ortho")

    def back(self, field: Tensor) -> Tensor:
        return ifft2(field, norm="ortho").real

    def padded(self, x: Tensor) -> Tensor:
        rows, columns = (n - old for n, old in zip(self._size(x.shape), x.shape[-2:], strict=True))
        return nn.functional.pad(x, (0, columns, 0, rows))

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        if len(measurement_shape) == 4:
            sides = (round(n / self.oversampling) for n in measurement_shape[-2:])
            shape = torch.Size((*measurement_shape[:2], *sides))
            if self._size(shape) == tuple(measurement_shape[-2:]) and 0 not in shape[-2:]:
                return shape
        raise ValueError(
            f"there are no images whose Fourier transform, oversampled by {self.oversampling:g}, "
            f"has the shape {tuple(measurement_shape)}: it must be (batch, channels, height, "
            f"width)"
        )

    def _size(self, image_shape: torch.Size) -> tuple[int, int]:
        rows, columns = (round(self.oversampling * n) for n in image_shape[-2:])
        return rows, columns


class CodedDiffraction(FourierMagnitude, nn.Module):
    """Magnitudes of the Fourier transforms of an image times known masks; y is (B, C K, H, W).

    The masks are octanary: the phase is a multiple of 90 degrees, and the magnitude sqrt(1/2)
    with probability 4/5, else sqrt(3).

    Arguments:
        masks: Number of masks K >= 1.
        seed: Seed of the masks.

    Raises:
        SettingError: There is no mask.
    """

    def __init__(self, masks: int = 4, seed: int = 0) -> None:
        super().__init__()
        if not (isinstance(masks, int) and masks >= 1):
            raise SettingError(f"masks must be a whole number of at least 1, got {masks!r}")
        self.masks, self.seed = masks, seed
        self._known: SharedCache[Tensor] = SharedCache()

    def energy(self, x: Tensor) -> float | Tensor:
        return self.pattern(x).abs().square().sum(dim=0)

    def field(self, x: Tensor) -> Tensor:
        return fft2(self.pattern(x) * x[:, :, None], norm="ortho").flatten(1, 2)

    def back(self, field: Tensor) -> Tensor:
        images = ifft2(field.unflatten(1, (-1, self.masks)), norm="ortho")
        pattern = self.pattern(images.real)
        return (pattern.conj() * images).real.sum(dim=2) / pattern.abs().square().sum(dim=0)

    def padded(self, x: Tensor) -> Tensor:
        return x

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        if len(measurement_shape) != 4 or measurement_shape[1] % self.masks:
            raise ValueError(
                f"measurements with {self.masks} masks must be (batch, channels x "
                f"{self.masks}, height, width), got shape {tuple(measurement_shape)}"
            )
        batch, channels, *size = measurement_shape
        return torch.Size((batch, channels // self.masks, *size))

    def pattern(self, like: Tensor) -> Tensor:
        """Returns the masks for images of a size, complex, shape (K, H, W)."""
        size = (self.masks, *like.shape[-2:])

        def draw() -> Tensor:
            generator = torch.Generator().manual_seed(self.seed)
            turns = torch.randint(4, size, generator=generator)
            weak = torch.rand(size, generator=generator) < 4 / 5
            strength = torch.where(weak, 0.5**0.5, 3**0.5).to(like)
            return torch.polar(strength, torch.pi / 2 * turns.to(like))

        return self._known.get((size, like.dtype, like.device), draw)


def _with_phase(y: Tensor, field: Tensor) -> Tensor:
    """Returns y times the phases of a field; where it is 0, y."""
    size = field.abs()
    return y * torch.where(size > 0, field / torch.where(size > 0, size, 1), 1)


def _alike(x: Tensor, reference: Tensor) -> Tensor:
    """Returns images, or their half turns, whichever are like the reference."""
    centred, like = (v - v.mean((-2, -1), keepdim=True) for v in (x, reference))
    turned = (centred.flip(-2, -1) * like).sum((-2, -1)) > (centred * like).sum((-2, -1))
    return torch.where(turned[..., None, None], x.flip(-2, -1), x)
