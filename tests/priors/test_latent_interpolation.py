import math

import pytest
import torch
from scipy.stats import truncnorm

from genprior.priors.glow import Glow
from genprior.priors.latent_interpolation import interpolate, slerp, truncate
from genprior.priors.pca import PCA


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_the_path_is_a_great_circle() -> None:
    a, b = normals(3, 5, 2), normals(3, 5, 2, seed=1)
    a, b = (v / v.flatten(1).norm(dim=1).reshape(3, 1, 1) for v in (a, b))
    whole = (a * b).flatten(1).sum(dim=1).acos()
    for t in (0.0, 0.3, 1.0):
        z = slerp(a, b, t)
        torch.testing.assert_close(z.flatten(1).norm(dim=1), torch.ones(3).double())
        cosine = (a * z).flatten(1).sum(dim=1).clamp(max=1)
        torch.testing.assert_close(cosine.acos(), t * whole, rtol=0, atol=1e-7)


def test_parallel_and_opposite_latents_are_no_trouble() -> None:
    a = normals(2, 4)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    assert slerp(a, 0 * a, 0.5).isfinite().all() and slerp(a, -a, 0.5).isfinite().all()


def test_the_ends_are_the_images_themselves() -> None:
    torch.manual_seed(0)
    prior = Glow(1, levels=1, depth=2, width=4).double().requires_grad_(False)
    a, b = torch.rand(2, 1, 1, 5, 6, generator=torch.Generator().manual_seed(0)).double()
    way = interpolate(prior, a, b, 4)
    assert way.shape == (1, 4, 1, 5, 6)
    torch.testing.assert_close(way[:, 0], a)
    torch.testing.assert_close(way[:, 3], b)
    z = prior.encode(a), prior.encode(b)
    torch.testing.assert_close(interpolate(prior, *z, 4, a.shape), way)


@pytest.mark.parametrize("bound", [0.5, 2.0])
def test_truncation_is_the_truncated_normal_law(bound: float) -> None:
    z = torch.linspace(-3, 3, 41, dtype=torch.float64)
    law = truncnorm(-bound, bound)
    torch.testing.assert_close(torch.from_numpy(law.cdf(truncate(z, bound))),
                               torch.special.ndtr(z), rtol=0, atol=1e-12)
    torch.testing.assert_close(truncate(z, 30.0), z)


def test_truncation_keeps_its_digits_in_single_precision() -> None:
    z = torch.tensor([-9.0, -5.5, -1.0, 0.0, 1.0, 5.5, 9.0])
    found = truncate(z, 6.0)
    torch.testing.assert_close(found.double(), truncate(z.double(), 6.0), rtol=1e-4, atol=1e-6)
    assert (found.abs() <= 6).all()


def test_errors() -> None:
    prior = PCA(torch.zeros(1, 2, 2), torch.eye(4)[:1].reshape(1, 1, 2, 2), torch.ones(1), 0.1)
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(TypeError, match="PCA has no encoder for images"):
        interpolate(prior, x, x, 3)
    with pytest.raises(ValueError, match="count must be at least 2, got 1"):
        interpolate(prior, x, x, 1)
    for bound in (0.0, math.nan):
        with pytest.raises(ValueError, match="bound must be above 0"):
            truncate(x, bound)
