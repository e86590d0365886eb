import deepinv
import pytest
import torch
from contracts import dense
from oracles import normals

from genprior.inverse.tikhonov import WEIGHT, laplacian, smooth_start
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.external import External
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import box_hole, random_keep
from genprior.operators.superres import SuperResolution

SHAPE = (1, 9, 8)


def gradient() -> torch.Tensor:
    """Matrix of all differences between neighbours."""
    H, W = SHAPE[1:]
    pixels = torch.eye(H * W, dtype=torch.float64).reshape(-1, H, W)
    both = [pixels.diff(dim=1).flatten(1), pixels.diff(dim=2).flatten(1)]
    return torch.cat(both, dim=1).mT


def test_laplacian_is_the_square_of_the_gradient() -> None:
    x = normals(1, 2, 3, *SHAPE[1:])[0]
    expected = (x.flatten(2) @ gradient().mT @ gradient()).reshape(x.shape)
    torch.testing.assert_close(laplacian(x), expected, rtol=0, atol=1e-13)
    assert not laplacian(torch.full((1, 1, 1, 1), 3.0)).any()


@pytest.mark.parametrize(
    "op",
    [
        Denoising(),
        Inpainting(random_keep((2, 1, 9, 8), 0.9)),
        Inpainting(~box_hole((1, 1, 9, 8), 6, 5)),
        Blur(torch.tensor([[1.0, 2, 4], [0, 1, 1]]), "valid"),
        Blur(torch.tensor([[1.0, 2, 4], [0, 1, 1]]), "circular"),
        SuperResolution(3, image_size=(9, 8)),
    ],
    ids=["denoising", "pixels", "box", "valid", "circular", "superres"],
)
def test_it_is_the_tikhonov_solution(op: Operator) -> None:
    x = 0.5 + 0.2 * normals(1, 2, *SHAPE)[0]
    y = op.A(x)
    found = smooth_start(y, op, iterations=400)
    L = gradient().mT @ gradient()
    for i in range(2):
        A = dense(op.select([i]), x[:1])
        normal = A.mT @ A + WEIGHT * L @ L
        expected = torch.linalg.solve(normal, A.mT @ y[i].flatten())
        torch.testing.assert_close(found[i].flatten(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("size", [20, 45])
def test_a_hole_is_filled_from_its_border(axis: int, size: int) -> None:
    # a ramp has no curvature, so no image with the same border is smoother
    ramp = torch.linspace(0, 1, 3 * size // 2).expand(1, 1, 3 * size // 2, -1)
    ramp = ramp if axis == 3 else ramp.mT
    op = Inpainting(~box_hole(ramp.shape, size, size))
    error = (smooth_start(op.A(ramp), op) - ramp).norm()
    grey = (ramp - op.A(ramp) - 0.5 * (1 - op.mask)).norm()
    assert error < 0.25 * grey
    if size == 20:
        exact = smooth_start(op.A(ramp), op, iterations=400)
        torch.testing.assert_close(exact, ramp, rtol=0, atol=1e-3)


@pytest.mark.parametrize("side", [16, 48, 64])
def test_rounding_errors_do_not_grow_in_undetermined_directions(side: int) -> None:
    # only a weighted mean of the colours is measured: differences of colours are undetermined
    op = External(deepinv.physics.Decolorize(), (3, side, side))
    x = 0.5 + 0.2 * normals(1, 1, 3, side, side)[0].float()
    start = smooth_start(op.A(x), op)
    assert -1 < start.min() and start.max() < 2


def test_images_of_a_batch_are_independent() -> None:
    op = Inpainting(random_keep((2, 1, 9, 8), 0.7))
    y = op.A(0.5 + 0.2 * normals(1, 2, *SHAPE)[0])
    y[1] *= 1e4
    together = smooth_start(y, op)
    alone = smooth_start(y[:1], op.select([0]))
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-7)
    both = smooth_start(y, op, weight=torch.tensor([0.5, 0.1], dtype=y.dtype))
    torch.testing.assert_close(both[:1], smooth_start(y[:1], op.select([0]), weight=0.5))
    assert both[0].diff().square().sum() < together[0].diff().square().sum()
