import numpy
import pytest
import torch
from contracts import dense, measure
from oracles import Dense, normals
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.inverse.optimization.patchnr import PatchNR
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.glow import Glow

SHAPE = (2, 6, 7)
SIGMA = torch.tensor([0.05, 0.2], dtype=torch.float64)
OPERATORS = [
    Inpainting(random_keep((2, 1, 6, 7), 0.4)),
    Blur(torch.rand(1, 1, 3, 2, generator=torch.Generator().manual_seed(1)), "circular"),
]


def patches_of(x: Tensor, p: int, stride: int) -> tuple[Tensor, Tensor]:
    """All patches of an image (C, H, W) as rows, by slicing, and their weights."""
    wide = numpy.pad(x.numpy(), [(0, 0), (p - 1, p - 1), (p - 1, p - 1)], mode="symmetric")
    rows, columns = (range(0, n - p + 1, stride) for n in wide.shape[-2:])
    corners = [(i, j) for i in rows for j in columns]
    weights = [0.5 ** ((not p - 1 <= i <= x.shape[-2] - 1) + (not p - 1 <= j <= x.shape[-1] - 1))
               for i, j in corners]
    patches = [wide[:, i : i + p, j : j + p].flatten() for i, j in corners]
    return torch.from_numpy(numpy.stack(patches)), torch.tensor(weights, dtype=x.dtype)


@pytest.mark.parametrize("p, stride", [(3, 1), (3, 2), (1, 1)])
@pytest.mark.parametrize("op", OPERATORS, ids=["inpainting", "blur"])
def test_a_gaussian_of_patches_gives_a_linear_system(op: Operator, p: int, stride: int) -> None:
    prior, weight = Dense(), 0.7
    y = measure(op, Dense().draw(2, SHAPE), SIGMA)
    x = PatchNR(200, p, stride, weight)(y, op, prior, SIGMA, Noise(0, [0, 1]))

    n = x[0].numel()
    basis = torch.eye(n, dtype=x.dtype).reshape(n, *SHAPE)
    P = torch.stack([patches_of(e, p, stride)[0] for e in basis], dim=-1)  # (N, C p p, n)
    c = patches_of(basis[0], p, stride)[1]
    inverse = prior.cov((SHAPE[0], p, p)).inverse()
    H = weight * stride**2 / p**2 * torch.einsum("k,kin,ij,kjm->nm", c, P, inverse, P)
    mean = torch.full((n,), 0.5, dtype=x.dtype)
    for i in range(2):
        A = dense(op.select([i]), x[i : i + 1])
        normal = A.mT @ A / SIGMA[i] ** 2 + H
        exact = torch.linalg.solve(normal, A.mT @ y[i].flatten() / SIGMA[i] ** 2 + H @ mean)
        error = (x[i].flatten() - exact).norm() / (exact - mean).norm()
        assert error < 1e-4


@pytest.mark.parametrize("patch, size", [(4, (9, 8)), (6, (6, 7)), (6, (3, 9)), (5, (1, 2))])
def test_every_pixel_counts_alike(patch: int, size: tuple[int, int]) -> None:
    # the log-density of independent pixels is the sum over pixels, at the border as well
    x, prior = normals(1, 2, 1, *size)[0], Dense(length=0)
    x.requires_grad_()
    found = PatchNR(patch=patch).log_prob(x, prior)[0] / patch**2
    law = torch.distributions.Normal(*torch.tensor([0.5, 0.25], dtype=x.dtype))
    expected = law.log_prob(x)[0].sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    torch.testing.assert_close(*(torch.autograd.grad(v, x)[0] for v in (found, expected)))


@pytest.mark.parametrize("size", [(1, 1), (3, 9)])
def test_images_smaller_than_a_patch_and_any_density(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    prior = Glow(1, levels=1, depth=1, width=4).requires_grad_(False)
    y = torch.rand(2, 1, *size)
    op = Blur(torch.ones(1, 1, 1, 1), "circular")
    x = PatchNR(5)(y, op, prior, 0.1, Noise(0, [0, 1]))
    assert x.shape == y.shape and x.isfinite().all()
    alone = PatchNR(5)(y[1:], op, prior, 0.1, Noise(0, [1]))
    torch.testing.assert_close(alone[0], x[1], rtol=0, atol=1e-5)


def test_errors() -> None:
    with pytest.raises(ValueError, match="stride in 1 ... patch, got 6 and 7"):
        PatchNR(stride=7)
    with pytest.raises(ValueError, match="weight must be > 0 and finite, got -1"):
        PatchNR(weight=-1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        PatchNR(steps=0)
