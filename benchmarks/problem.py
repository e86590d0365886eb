"""Problems of the calibration table: three measurements of a texture with exact posteriors."""

from collections.abc import Callable
from dataclasses import dataclass, field

import deepinv
import torch
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.exact_laws import Problem
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser
from genprior.priors.texture import Texture

SIZE, PIXELS, NOISE, CHAINS, STEPS = 16, 256, 0.05, 64, 100
SHAPE = (1, SIZE, SIZE)
CHAIN_KEYS = [(1, chain) for chain in range(CHAINS)]


@dataclass(frozen=True)
class Task:
    """Measurement, with its operator in genprior, in deepinv and as a matrix.

    Arguments:
        operator: Operator of genprior.
        physics: The same operator in deepinv.
        y: Measurement, batch of 1.
        matrix: The same operator as a matrix.
        noise: Noise level.
        shape: Shape (C, H, W) of the image.
        chains: Number of samples to draw.
    """

    operator: Operator
    physics: deepinv.physics.LinearPhysics
    y: Tensor
    matrix: Tensor
    noise: float = NOISE
    shape: tuple[int, int, int] = SHAPE
    chains: int = CHAINS


@dataclass(frozen=True)
class Solved(Task):
    """Measurement with its exact posterior N(mean, cov)."""

    mean: Tensor = field(kw_only=True)
    cov: Tensor = field(kw_only=True)


Sampler = Callable[[Task, Denoiser, int], Tensor]


def texture() -> Texture:
    """Returns the prior in float64."""
    f = torch.fft.fftfreq(SIZE, dtype=torch.float64)
    spectrum = (0.01 + f[:, None] ** 2 + f**2) ** -1.5
    return Texture.from_spectrum(spectrum * 0.15**2 / spectrum.mean(), mean=0.5)


def tasks(prior: Texture, seed: int) -> dict[str, Solved]:
    """Returns three measurements of one image, with operators of genprior and of deepinv.

    Raises:
        ValueError: The operators of the two libraries differ.
    """
    keep = random_keep((1, *SHAPE), 0.5, seed)
    kernel = gaussian_kernel(1.0)
    noise = deepinv.physics.GaussianNoise(NOISE)
    own = {
        "inpaint": Inpainting(keep),
        "deblur": Blur(kernel, "circular"),
        "superres": SuperResolution(2, "bicubic", boundary="circular"),
    }
    peer = {
        "inpaint": deepinv.physics.Inpainting(SHAPE, keep[0].float(), noise_model=noise),
        "deblur": deepinv.physics.BlurFFT(SHAPE, kernel[None, None].float(), noise_model=noise),
        "superres": deepinv.physics.Downsampling(SHAPE, "bicubic", noise_model=noise),
    }
    random = Noise(seed, [(0, 0)])
    x = prior.decode(random.normal(torch.zeros(1, *SHAPE).double()), (1, *SHAPE))
    unit = torch.eye(PIXELS).double().reshape(-1, *SHAPE)
    S, m = prior.cov(unit).flatten(1), prior.mean(x.shape).expand_as(x).flatten()
    out = {}
    for name, operator in own.items():
        A = operator.A(unit).flatten(1).mT
        if not torch.allclose(peer[name].A(unit.float()).flatten(1).mT, A.float(), atol=1e-6):
            raise ValueError(f"the two libraries disagree on the operator of {name}")
        y = operator.A(x)
        y = y + operator.mask_unmeasured(NOISE * random.normal(y))
        exact = Problem(S, A, NOISE)
        mean = m + exact.gain @ (y.flatten() - A @ m)
        cov = exact.posterior_cov
        out[name] = Solved(operator, peer[name], y, A, mean=mean, cov=cov)
    return out
