import pytest
import torch
from torch import Tensor

from genprior.core.poisson_blending import screened_poisson


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def hole(*shape: int) -> Tensor:
    inside = torch.zeros(1, 1, *shape, dtype=torch.bool)
    inside[..., 2:6, 0:5] = True  # at the border of the image
    inside[..., 4:9, 4:7] = True
    return inside


def test_it_minimises_the_objective() -> None:
    m, g, inside = image(2, 1, 10, 9), image(2, 1, 10, 9) ** 2, hole(10, 9)
    down, right = g.diff(dim=-2), g.diff(dim=-1)
    u = screened_poisson(m, inside, down, right, 0.2).requires_grad_()
    near = [
        inside.narrow(axis, 0, u.shape[axis] - 1) | inside.narrow(axis, 1, u.shape[axis] - 1)
        for axis in (-2, -1)
    ]
    objective = (
        ((u.diff(dim=-2) - down)[near[0].expand_as(down)] ** 2).sum()
        + ((u.diff(dim=-1) - right)[near[1].expand_as(right)] ** 2).sum()
        + 0.2 * ((u - m)[inside.expand_as(u)] ** 2).sum()
    )
    (gradient,) = torch.autograd.grad(objective, u)
    assert gradient[inside.expand_as(u)].abs().max() < 1e-3
    assert torch.equal(u[~inside.expand_as(u)], m[~inside.expand_as(u)])


def test_an_image_with_the_wanted_differences_is_its_own_solution() -> None:
    m, inside = image(1, 3, 10, 9), hole(10, 9)
    u = screened_poisson(m, inside, m.diff(dim=-2), m.diff(dim=-1), 0.01)
    assert torch.equal(u, m)


@pytest.mark.parametrize("offset", [0.3, -0.1])
def test_a_copy_of_other_brightness_has_no_seam(offset: float) -> None:
    x = image(1, 1, 12, 12)
    inside = hole(12, 12)
    copy = torch.where(inside, x + offset, x)
    u = screened_poisson(copy, inside, x.diff(dim=-2), x.diff(dim=-1), 1e-6)
    assert (u - x).abs().max() < 1e-4


def test_no_hole_changes_nothing() -> None:
    m = image(1, 1, 4, 5)
    none = torch.zeros(1, 1, 4, 5, dtype=torch.bool)
    assert torch.equal(screened_poisson(m, none, m[..., 1:, :], m[..., 1:], 0.1), m)
