"""Phase retrieval: magnitudes of Fourier transforms, their phases are lost.

    y = |F P x|                      P pads the image with zeros: oversampling
    y_k = |F (m_k x)|                m_k are known random masks: coded diffraction patterns

F is the unitary discrete Fourier transform. From oversampled magnitudes alone an image and the
same image turned by 180 degrees cannot be told apart; masks tell them apart. The start of
iterative solvers is found by hybrid input-output, for masks by error reduction:

    z = L^+ (y exp(i arg L x)),   x <- z where z is an image in [0, 1], else x - beta z   (or 0)

with the linear map L before the magnitude.

References:
    Phase Retrieval Algorithms: a Comparison, Fienup, 1982.
    Phase Retrieval from Coded Diffraction Patterns, Candes, Li and Soltanolkotabi, 2015.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.fft import fft2, ifft2

from genprior.core.errors import SettingError
from genprior.operators.cache import SharedCache
from genprior.operators.nonlinear import NonlinearOperator

# Iterations of the start, the number of them that are error reduction at the end, and beta.
ITERATIONS, FINAL, BETA = 200, 20, 0.9
# Seed of the random image from which the start is computed.
START_SEED = 0


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

    def A(self, x: Tensor) -> Tensor:
        return self.field(self.padded(x)).abs()

    def expansion_point(self, y: Tensor) -> Tensor:
        shape = self.image_shape(y.shape)
        with torch.no_grad():
            # the same for every image: the result must not depend on the batch
            generator = torch.Generator().manual_seed(START_SEED)
            first = torch.rand(shape[1:], generator=generator, dtype=torch.float64)
            x = self.padded(first.to(y).expand(shape))
            inside = self.padded(torch.ones_like(y[:1, :1, :1, :1]).expand(1, 1, *shape[2:])) > 0
            for k in range(ITERATIONS):
                field = self.field(x)
                size = field.abs()
                phase = torch.where(size > 0, field / torch.where(size > 0, size, 1), 1)
                z = self.back(y * phase)
                allowed = inside & (z >= 0) & (z <= 1)
                if k < ITERATIONS - FINAL and not inside.all():
                    x = torch.where(allowed, z, x - BETA * z)
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

    def __init__(self, oversampling: float = 2.0) -> None:
        super().__init__()
        if not 1 <= oversampling < float("inf"):
            raise SettingError(f"oversampling must be at least 1 and finite, got {oversampling}")
        self.oversampling = oversampling

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
