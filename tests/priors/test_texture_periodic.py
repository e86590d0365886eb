"""Periodic component: the properties that define it (Moisan, 2011)."""

import math

import torch
from torch import Tensor

from genprior.priors.texture_periodic import periodic_component


def inner_laplacian(u: Tensor) -> Tensor:
    """Returns the sum over neighbours inside the image of their difference from the pixel."""
    total = torch.zeros_like(u)
    for dim in (-2, -1):
        n = u.shape[dim]
        d = u.diff(dim=dim)
        total.narrow(dim, 0, n - 1).add_(d)
        total.narrow(dim, 1, n - 1).sub_(d)
    return total


def periodic_laplacian(u: Tensor) -> Tensor:
    return sum(u.roll(step, dim) - u for step in (1, -1) for dim in (-2, -1))


def test_its_periodic_laplacian_is_the_laplacian_inside_the_image() -> None:
    u = torch.rand(2, 3, 7, 10, dtype=torch.float64)
    p = periodic_component(u)
    assert torch.allclose(periodic_laplacian(p), inner_laplacian(u), atol=1e-12)
    assert torch.allclose(p.mean(dim=(-2, -1)), u.mean(dim=(-2, -1)))


def test_a_ramp_loses_its_jump() -> None:
    u = torch.linspace(0, 1, 64, dtype=torch.float64).expand(64, 64)
    p = periodic_component(u)
    assert (p[:, 0] - p[:, -1]).abs().max() < 0.05  # 1 in u


def test_an_image_without_jumps_changes_little() -> None:
    angle = torch.arange(64, dtype=torch.float64) * (2 * math.pi / 64)
    u = angle.sin()[:, None] * (2 * angle).cos()
    inner = (periodic_component(u) - u)[16:48, 16:48]
    assert inner.std() < 0.02 * u.std()
