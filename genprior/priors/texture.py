"""Stationary Gaussian texture: white noise convolved with one small image, the texton.

    X_c = m_c + t_c * W,    t_c = (u_c - m_c) / sqrt(pixels),    W ~ N(0, I)

where u is the exemplar, m its mean colour and t the texton. All channels c share one white noise
field W, so at every frequency k the covariance of the channels is t(k) t(k)^*, of rank one. This
covariance is singular. The prior is therefore the distribution of
X plus white noise of standard deviation `floor`, with covariance t(k) t(k)^* + floor^2 I.

References:
    Random Phase Textures: Theory and Synthesis, Galerne, Gousseau and Morel, 2011.
    Texture Inpainting Using Efficient Gaussian Conditional Simulation, Galerne and
    Leclaire, 2017 (exemplar with a hole, non-periodic model, noise floor).

Differs from the authors' code:
    1. Non-periodic images are computed on a torus with a margin, not on one of twice their
       size: opposite borders are far apart, and the linear systems are much better conditioned.
    2. The noise floor is part of the distribution in every ability, and is not 0 by default.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fft import fft2, ifft2, irfft2, rfft2

from genprior.core.linalg import cg, damped_inverse, fast_size, per_image, split_along
from genprior.priors.arguments import check_sizes
from genprior.priors.base import Factor, Gaussian
from genprior.priors.texture_masked import texton_of_known
from genprior.priors.texture_periodic import periodic_component
from genprior.priors.texture_spectrum import mean_spectrum, nearest_texton

FLOOR = 0.01
MARGIN = 32


class Texture(nn.Module, Gaussian):
    """Gaussian distribution of a texture.

    With `margin` 0 images are periodic, and every ability has a closed form per frequency. With
    a margin `denoise` solves a linear system, and `log_prob` raises an error.

    Arguments:
        texton: Zero-mean image t, shape (C, h, w); pixel variance is the sum of its squares.
        mean: Mean colour, shape (C,), in [0, 1].
        margin: Minimum number of pixels by which the torus of the white noise exceeds the
            image. 0: images are periodic, and at least as large as the texton. A few
            correlation lengths: opposite borders are uncorrelated. None: exactly the
            distribution on the plane, on a torus as large as image and texton together.
        floor: Standard deviation of the white part, in units of [0, 1]. At 0 a colour texture
            has no density, and inpainting of noiseless pixels has no solution unless they lie
            in the range of the texture.

    Raises:
        ValueError: Shapes do not fit, or the margin or the floor is negative.
    """

    def __init__(
        self,
        texton: Tensor,
        mean: Tensor,
        margin: int | None = MARGIN,
        floor: float = FLOOR,
    ) -> None:
        super().__init__()
        self.eval()  # a closed form has no training mode; solvers would copy it
        if texton.ndim != 3 or mean.shape != texton.shape[:1]:
            raise ValueError(
                f"texton must be (C, h, w) and mean (C,), got {tuple(texton.shape)} and "
                f"{tuple(mean.shape)}"
            )
        if not (math.isfinite(floor) and floor >= 0):
            raise ValueError(f"floor must be >= 0, in units of [0, 1], got {floor}")
        if margin is not None and margin < 0:
            raise ValueError(f"margin must be >= 0 pixels or None, got {margin}")
        self.margin = margin
        self.floor = float(floor)
        self.register_buffer("texton", texton.detach())
        self.register_buffer("mean_colour", mean.detach())
        self._cached: tuple[tuple, tuple[Tensor, Tensor, Tensor]] | None = None

    @classmethod
    def from_config(cls, shape: Sequence[int], margin: int | None, floor: float) -> "Texture":
        """Returns a texture of the given sizes, to load tensors into."""
        check_sizes(shape=shape, margin=margin)
        return cls(torch.zeros(*shape), torch.zeros(shape[0]), margin, floor)

    @property
    def config(self) -> Mapping[str, Any]:
        """Arguments of `from_config`, JSON types."""
        return {"shape": list(self.texton.shape), "margin": self.margin, "floor": self.floor}

    @classmethod
    def from_exemplar(
        cls, image: Tensor, keep: Tensor | None = None, margin: int | None = MARGIN,
        floor: float = FLOOR,
    ) -> "Texture":
        """Estimates a texture from one image, or from its known pixels.

        Arguments:
            image: Exemplar, shape (1, C, H, W), in [0, 1].
            keep: Non-zero where the exemplar is known, shape (1, 1, H, W); None if all pixels
                are known. For scattered missing pixels see `genprior.priors.texture_masked`.
            margin, floor: See the class.

        Raises:
            ValueError: There is more than one image, no known pixel, or too few known pixels
                with known neighbours.
        """
        if image.ndim != 4 or len(image) != 1:
            raise ValueError(
                f"the exemplar must be one image (1, C, H, W), got shape {tuple(image.shape)}"
            )
        u = image[0]
        if keep is None:
            mean = u.mean(dim=(1, 2))
            centred = periodic_component(u) - mean[:, None, None]
            return cls(centred / math.sqrt(u[0].numel()), mean, margin, floor)
        return cls(*texton_of_known(u, keep.reshape(keep.shape[-2:]) != 0), margin, floor)

    @classmethod
    def from_images(
        cls, images: Tensor, margin: int | None = MARGIN, floor: float | None = None
    ) -> "Texture":
        """Estimates the most likely texture from many images.

        See `genprior.priors.texture_spectrum`.

        Arguments:
            images: Crops of the size of the texton, shape (N, C, H, W), in [0, 1].
            margin: See the class.
            floor: See the class; None means the most likely one in colour, 0.01 in grey.
        """
        mean = images.mean(dim=(0, 2, 3))
        if floor is None and images.shape[1] == 1:
            floor = FLOOR
        texton, floor = nearest_texton(mean_spectrum(images, mean), floor)
        return cls(texton, mean, margin, floor)

    @classmethod
    def from_spectrum(cls, spectrum: Tensor, mean: float = 0.5, floor: float = 0.0) -> "Texture":
        """Returns a periodic grey texture with a given power spectrum and a zero-phase texton.

        Arguments:
            spectrum: Variance S(k) >= 0 of each frequency, shape (H, W), in the layout of
                `fft2` and even: S(-k) = S(k). Its mean is the pixel variance.
            mean: Mean grey level, in [0, 1].
            floor: See the class.

        Raises:
            ValueError: The spectrum is negative somewhere or not even.
        """
        mirrored = spectrum.roll((-1, -1), dims=(0, 1)).flip((0, 1))
        if (spectrum < 0).any() or not torch.allclose(mirrored, spectrum):
            raise ValueError("spectrum must be >= 0 and even, S(-k) = S(k)")
        texton = ifft2(spectrum.sqrt()).real[None]
        return cls(texton, texton.new_full((1,), mean), margin=0, floor=floor)

    @property
    def channels(self) -> int:
        """3 for colour, 1 for grey."""
        return len(self.texton)

    def torus(self, image_shape: torch.Size) -> tuple[int, int]:
        """Returns height and width of the torus of the white noise field.

        Raises:
            ValueError: The channels differ from those of the texture, or the image is too small.
        """
        texton, size = self.texton.shape[1:], tuple(image_shape[-2:])
        if image_shape[1] != self.channels:
            raise ValueError(
                f"this texture has {self.channels} channel(s), got images of shape "
                f"{tuple(image_shape)}: convert the images or the exemplar"
            )
        if self.margin != 0:
            return tuple(map(self._torus_side, size, texton))
        if any(n < t for n, t in zip(size, texton, strict=True)):
            raise ValueError(
                f"a periodic texture needs images at least as large as its texton "
                f"{tuple(texton)}, got {size}: make it with margin={MARGIN}"
            )
        return size

    def _torus_side(self, n: int, texton: int) -> int:
        if self.margin is None:
            return fast_size(n + texton - 1)
        return fast_size(max(n + min(self.margin, texton - 1), texton))

    def mean(self, image_shape: torch.Size) -> Tensor:
        return self.mean_colour[None, :, None, None]

    def cov(self, v: Tensor) -> Tensor:
        factor = self.factor(v.shape, v)
        return factor.apply(factor.adjoint(v)) + self.floor**2 * v

    def factor(self, image_shape: torch.Size, like: Tensor) -> Factor:
        (height, width), size = image_shape[-2:], self.torus(image_shape)
        full, t, power = self._spectra(like, size)

        def adjoint(v: Tensor) -> Tensor:
            return irfft2((t.conj() * rfft2(v, s=size)).sum(dim=1, keepdim=True), s=size)

        def gram_inverse(w: Tensor, delta: Tensor) -> Tensor:
            return irfft2(rfft2(w) * damped_inverse(power, per_image(delta, w)), s=size)

        return Factor(
            shape=(1, *size),
            apply=lambda w: irfft2(t * rfft2(w), s=size)[..., :height, :width],
            adjoint=adjoint,
            gram_inverse=gram_inverse,
            floor=self.floor,
            transfer=full,
        )

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        channels = 1 + (image_shape[1] if self.floor else 0)
        return (image_shape[0], channels, *self.torus(image_shape))

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        """Returns images m + t * W + floor n of z = (W, n), white noise on the torus (ADSN)."""
        height, width = image_shape[-2:]
        x = self.synthesise(z[:, :1], image_shape)
        return x + self.floor * z[:, 1:, :height, :width] if self.floor else x

    def synthesise(
        self, w: Tensor, image_shape: torch.Size, method: Literal["adsn", "rpn"] = "adsn"
    ) -> Tensor:
        """Returns texture images without the noise floor.

        Arguments:
            w: White noise, shape (B, 1, *torus(image_shape)).
            image_shape: Shape (B, C, H, W) of the images.
            method: "adsn" convolves w; "rpn" uses the phases of w only, so that the spectrum
                of every image on the torus has the modulus of the texton's spectrum.

        Raises:
            ValueError: The method is unknown.
        """
        if method not in ("adsn", "rpn"):
            raise ValueError(f"method must be 'adsn' or 'rpn', got {method!r}")
        if method == "rpn":
            phases = rfft2(w).angle()
            modulus = torch.full_like(phases, math.sqrt(w[0].numel()))
            w = irfft2(torch.polar(modulus, phases), s=w.shape[-2:])
        return self.mean(image_shape).to(w) + self.factor(image_shape, w).apply(w)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        factor, sigma2 = self.factor(x.shape, x), per_image(sigma, x).square()
        r = x - self.mean(x.shape).to(x)
        if self.margin == 0:
            return x - factor.shrinkage(r, sigma2.flatten())
        delta = (self.floor**2 + sigma2).flatten()
        return x - sigma2 * cg(
            lambda v: self.cov(v) + sigma2 * v,
            r,
            iterations=1000,
            preconditioner=lambda v: factor.residual(v, delta),
            tolerance=100 * torch.finfo(x.dtype).eps,
        )

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns the log-density in nats of a periodic texture; in colour it needs floor > 0.

        Raises:
            ValueError: There is no density, or it has no closed form.
        """
        if self.margin != 0:
            raise ValueError(
                "the density of a texture that is not periodic has no closed form: make it "
                "with margin=0, or use a solver that needs no density"
            )
        channels, pixels = x.shape[1], math.prod(self.torus(x.shape))
        t = fft2(self.texton.to(x), s=x.shape[-2:])
        power, floor2 = t.abs().square().sum(dim=0), self.floor**2
        if not floor2 and (channels > 1 or (power == 0).any()):
            raise ValueError(
                "this texture is singular and has no density: make it with floor > 0, the "
                "standard deviation of white noise in units of [0, 1]"
            )
        r = fft2(x - self.mean(x.shape).to(x), norm="ortho")
        constant = (power + floor2).log().sum() + channels * pixels * math.log(2 * math.pi)
        if channels > 1:
            parts = split_along(r, t / torch.where(power > 0, power, 1).sqrt())
            along, rest = (part.abs().square() for part in parts)
            distance = along / (power + floor2) + rest.sum(dim=1) / floor2
            constant = constant + (channels - 1) * pixels * math.log(floor2)
        else:
            distance = r[:, 0].abs().square() / (power + floor2)
        return -0.5 * (distance.sum(dim=(1, 2)) + constant)

    def _spectra(self, like: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns `fft2`, `rfft2` and the power spectrum of the texton on a torus; cached."""
        key = (size, like.dtype, like.device)
        cached = self._cached  # another thread may replace it
        if cached is None or cached[0] != key:
            with torch.inference_mode(False):  # later calls may need gradients
                full = fft2(self.texton.to(like), s=size)
                half = full[..., : size[1] // 2 + 1].contiguous()
                cached = self._cached = key, (full, half, half.abs().square().sum(dim=0))
        return cached[1]
