import pytest
import torch
import torch.nn.functional as F

from genprior.inverse.blind.sparse_gradients import (
    centred,
    estimate_free_kernel,
    sparse_gradient_image,
)


def rectangles(height, width, count=60):
    """A piecewise constant image, (1, 1, H, W)."""
    generator = torch.Generator().manual_seed(3)
    x = torch.full((1, 1, height, width), 0.5)
    for _ in range(count):
        top, left, h, w = (
            int(torch.randint(low, high, (), generator=generator))
            for low, high in ((0, height - 8), (0, width - 8), (8, 40), (8, 40))
        )
        x[..., top : top + h, left : left + w] = torch.rand((), generator=generator)
    return x


def bent():
    """A path with a corner, not symmetric, (9, 9)."""
    k = torch.zeros(9, 9)
    k[1:8, 2] = 1
    k[7, 3:8] = 1
    return k / k.sum()


def test_a_bent_kernel_is_found_from_edges():
    k, x = centred(bent()[None, None]), rectangles(153, 140)
    y = F.conv2d(x, k.flip(-1, -2))
    y = y + 0.003 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    found = estimate_free_kernel(y, 11)
    assert found.shape == (1, 1, 11, 11)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    assert (found >= 0).all()
    match = F.conv2d(F.pad(found, (4, 4, 4, 4)), k).max() / (found.norm() * k.norm())
    assert match > 0.9  # the longer leg alone has 0.76


def test_without_blur_small_steps_vanish_and_large_ones_stay():
    x = torch.full((1, 1, 40, 37), 0.3)
    x[..., 15:] = 0.8
    small = x.clone()
    small[..., 20:, :] += 0.01
    delta = torch.ones(1, 1, 1, 1)
    flattened = sparse_gradient_image(small, delta, 4e-3)
    inner = flattened[..., 5:-5, 5:-5]
    assert (inner[..., 20:, :] - inner[..., :10, :]).abs().max() < 3e-3
    steps = inner.diff(dim=-1)[..., 9]
    assert steps.min() > 0.4


def test_centred_moves_the_centre_of_mass_to_the_middle():
    k = torch.zeros(1, 1, 5, 7)
    k[..., 0, 1], k[..., 1, 1] = 0.75, 0.25
    moved = centred(k)
    assert moved[0, 0, 2, 3] == 0.75
    assert moved[0, 0, 3, 3] == 0.25
    assert moved.sum() == 1
