"""Problems with a Gaussian posterior, and their posterior from dense float64 matrices."""

import torch
from contracts import dense

from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.external import External
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel, motion_kernel
from genprior.operators.superres import SuperResolution
from genprior.priors.pca import PCA
from genprior.priors.texture import Texture

EXACT = {"tolerance": 1e-13, "iterations": 3000}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def rand(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def operators(size, channels=1):
    keep = rand(1, 1, size, size, seed=1) > 0.3
    apart = rand(1, channels, size, size, seed=2) > 0.5
    box = torch.ones(1, 1, size, size)
    box[..., 2:5, 1:6] = 0
    small = gaussian_kernel(0.5)
    return {
        "denoise": Denoising(),
        "random": Inpainting(keep),
        "box": Inpainting(box),
        "per channel": Inpainting(apart),
        "circular": Blur(small, boundary="circular"),
        "motion": Blur(motion_kernel(3, 30.0), boundary="circular"),
        "valid": Blur(small, boundary="valid"),
        "reflect": Blur(small, boundary="reflect"),
        "alias": SuperResolution(2, "gaussian", boundary="circular"),
        "average": SuperResolution(2, "box"),
        "bicubic": SuperResolution(2),
        "external": External(Blur(small, boundary="replicate")),
    }


def priors(size, channels):
    u = rand(1, channels, size, size, seed=3)
    images = rand(20, channels, size, size, seed=4)
    return {
        "torus": Texture.from_exemplar(u, margin=0),
        "no floor": Texture.from_exemplar(u, margin=0, floor=0.0),
        "margin": Texture.from_exemplar(u, margin=3),
        "plane": Texture.from_exemplar(u[..., :4, :4], margin=None),
        "pca": PCA.from_images(images, 8, generator(0)),
    }


def exact(prior, op, sigma, shape):
    """Returns gain, mean offset and covariance of the posterior, and the prior covariance."""
    S = prior.cov(torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape[1:]))
    S, A = S.flatten(1), dense(op, torch.zeros(shape, dtype=torch.float64))
    mean = prior.mean(shape).expand(shape).flatten()
    gram = A @ S @ A.T + sigma**2 * torch.eye(len(A), dtype=torch.float64)
    K = S @ A.T @ torch.linalg.pinv(gram, hermitian=True, rtol=1e-12)
    return K, mean - K @ A @ mean, S - K @ A @ S, S
