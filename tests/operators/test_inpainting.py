import deepinv
import numpy as np
import pytest
import torch
from contracts import check_operator

from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import box_hole, random_keep


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("masks", [1, 2])
def test_laws(channels: int, masks: int) -> None:
    x = images(2, channels, 5, 7)
    check_operator(Inpainting(random_keep((masks, 1, 5, 7), 0.4)), x)


def test_laws_with_a_mask_per_channel_and_a_single_row() -> None:
    x = images(2, 3, 1, 9)
    check_operator(Inpainting(random_keep((2 * 3, 1, 1, 9), 0.5).reshape(2, 3, 1, 9)), x)


def test_measurement_agrees_with_numpy_and_deepinv() -> None:
    x = images(2, 3, 8, 9)
    keep = random_keep((2, 3, 8, 9), 0.3)
    op = Inpainting(keep)
    assert np.array_equal(op.A(x).numpy(), x.numpy() * keep.numpy())
    theirs = deepinv.physics.Inpainting(img_size=(1, 8, 9), mask=keep.double())
    assert torch.equal(op.A(x), theirs.A(x))
    assert torch.equal(op(x), op.A(x))


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
def test_known_pixels_are_bit_identical_and_nothing_leaks_from_the_hole(kind: torch.dtype) -> None:
    keep = random_keep((1, 1, 8, 9), 0.5)
    op = Inpainting(keep.to(kind))
    x, y = images(1, 3, 8, 9).float(), images(1, 3, 8, 9).float().square()
    y = torch.where(keep, y, torch.nan)
    for result in (op.keep_known(x, y), op.prox(x, y, 0.0)):
        assert torch.equal(result, torch.where(keep, y, x))
        assert result.dtype == torch.float32
    assert op.A_adjoint(y).isfinite().all()
    assert op.prox(x, y, 0.3).isfinite().all()


def test_num_measurements_counts_known_entries() -> None:
    keep = torch.ones(2, 1, 4, 5)
    keep[0, 0, 0, 0] = 0
    keep[1, 0, :2] = 0
    assert Inpainting(keep).num_measurements(torch.zeros(2, 3, 4, 5)).tolist() == [57, 30]


def test_select_repeats_and_reorders() -> None:
    keep = random_keep((3, 1, 4, 5), 0.5)
    assert torch.equal(Inpainting(keep).select([2, 0, 0]).mask.bool(), keep[[2, 0, 0]])


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (torch.ones(5), "shape \\(batch or 1.*got \\(5,\\)"),
        (torch.full((1, 1, 4, 5), 0.5), "only 0 \\(missing\\) and 1 \\(known\\): threshold"),
        (torch.ones(1, 1, 4, 5), "nothing is missing in the mask of image 0"),
        (torch.stack([torch.eye(3), torch.zeros(3, 3)])[:, None], "nothing is known.*image 1"),
    ],
)
def test_bad_masks(keep: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Inpainting(keep)


@pytest.mark.parametrize("shape", [(1, 1, 5, 4), (3, 1, 4, 5), (4, 5)])
def test_mask_of_another_size(shape: tuple[int, ...]) -> None:
    op = Inpainting(random_keep((2, 1, 4, 5), 0.5))
    what = "the size of the image: the mask is" if len(shape) == 4 else "images must be a batch"
    with pytest.raises(ValueError, match=what):
        op.A(torch.zeros(shape))


@pytest.mark.parametrize("missing", [0.001, 0.5, 0.9, 0.999])
def test_random_keep_has_the_given_fraction_missing(missing: float) -> None:
    keep = random_keep((3, 3, 10, 11), missing)
    expected = min(max(round(missing * 110), 1), 109)
    assert (~keep).flatten(1).sum(dim=1).tolist() == [expected] * 3
    assert keep.shape == (3, 1, 10, 11)


def test_random_keep_depends_on_seed_and_image_alone() -> None:
    state = torch.get_rng_state()
    two = random_keep((2, 1, 9, 9), 0.5, seed=0)
    assert torch.equal(two[:1], random_keep((1, 1, 9, 9), 0.5, seed=0))
    assert not torch.equal(two[0], two[1])
    assert not torch.equal(two, random_keep((2, 1, 9, 9), 0.5, seed=1))
    assert torch.equal(state, torch.get_rng_state())
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    own = random_keep((2, 1, 9, 9), 0.5, generators)
    assert not torch.equal(own[0], own[1])


def test_box_hole() -> None:
    hole = box_hole((2, 3, 7, 9), 3, 4, position=(4, 5))
    rows, columns = hole[1, 0].nonzero(as_tuple=True)
    assert rows.unique().tolist() == [4, 5, 6]
    assert columns.unique().tolist() == [5, 6, 7, 8]
    assert hole.sum() == 2 * 12
    centred = box_hole((1, 1, 7, 9), 3, 3)
    assert torch.equal(centred, centred.flip(-1).flip(-2))


@pytest.mark.parametrize("missing", [0, 1, -0.1, 1.5, float("nan")])
def test_bad_fraction(missing: float) -> None:
    with pytest.raises(ValueError, match="fraction of missing pixels must be above 0 and below 1"):
        random_keep((1, 1, 4, 4), missing)


def test_other_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least 2 pixels, got 1x1"):
        random_keep((1, 1, 1, 1), 0.5)
    with pytest.raises(ValueError, match="one generator for each of 2 images, got 1"):
        random_keep((2, 1, 4, 4), 0.5, [torch.Generator()])
    with pytest.raises(ValueError, match="inside the image of 4x5 pixels, got a box of 5x5"):
        box_hole((1, 1, 4, 5), 5, 5)
    with pytest.raises(ValueError, match="at row 2, column 0: make it smaller or move it"):
        box_hole((1, 1, 4, 5), 3, 3, position=(2, 0))
    with pytest.raises(ValueError, match="at least 1x1 pixels, got 0x3"):
        box_hole((1, 1, 4, 5), 0, 3)
