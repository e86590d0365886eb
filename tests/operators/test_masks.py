"""Masks as images, and their shapes."""

import numpy as np
import pytest
import torch
from PIL import Image

from genprior import make_operator
from genprior.core.random_streams import Noise
from genprior.operators.masks import grown, hole_of, random_keep

HOLE = torch.zeros(6, 9, dtype=torch.bool)
HOLE[1:3, 2:7] = True
BYTES = HOLE.numpy().astype(np.uint8)


@pytest.mark.parametrize(
    "mask",
    [
        HOLE, HOLE.float(), HOLE.long(), BYTES, 255 * BYTES, 65535 * BYTES.astype(np.uint16),
        BYTES * 0.5, BYTES.tolist(), Image.fromarray(255 * BYTES), Image.fromarray(HOLE.numpy()),
        Image.fromarray(128 * BYTES + 127 * (1 - BYTES)),
    ],
    ids=lambda mask: f"{type(mask).__name__} {getattr(mask, 'dtype', '')}",
)
def test_white_is_filled_in(mask: object) -> None:
    assert torch.equal(hole_of(mask), HOLE)
    operator = make_operator("inpaint", mask=mask)
    assert torch.equal(operator.mask[0, 0] == 0, HOLE)


@pytest.mark.parametrize(
    "mask", [1.5 * BYTES, -1 * BYTES.astype(int), 70000 * BYTES.astype(int), BYTES * np.nan]
)
def test_other_values_are_refused(mask: object) -> None:
    with pytest.raises(ValueError, match="a mask must hold bools, floats in .0, 1., or integers"):
        make_operator("inpaint", mask=mask)


def test_a_picture_in_colour_is_no_mask() -> None:
    picture = Image.fromarray(np.zeros((6, 9, 4), np.uint8))
    with pytest.raises(ValueError, match="must be a grey image, got a Pillow image of mode RGBA"):
        make_operator("inpaint", mask=picture)


@pytest.mark.parametrize("name", ["mask", "keep"])
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float64])
def test_shapes_of_masks(name: str, kind: torch.dtype) -> None:
    given = (HOLE if name == "mask" else ~HOLE).to(kind)
    three = torch.stack([given, given.flip(0), given.flip(1)])
    for value, count in (
        (given, 1), (given[..., None], 1), (given[None], 1), (three, 3), (three[:, None], 3)
    ):
        missing = make_operator("inpaint", **{name: value}).mask == 0
        assert missing.shape == (count, 1, 6, 9) and torch.equal(missing[0, 0], HOLE)
    assert torch.equal(missing[2, 0], HOLE.flip(1))
    with pytest.raises(ValueError, match=r"keep must have shape .* \(batch, height, width\), got"):
        make_operator("inpaint", **{name: given[0]})


def test_holes_grow_by_a_distance_on_all_sides() -> None:
    keep = torch.rand(2, 1, 17, 23, generator=torch.Generator().manual_seed(0)) > 0.02
    keep[1] = True  # an image without a hole stays as it is
    place = torch.cartesian_prod(torch.arange(17), torch.arange(23)).double()
    for distance in (0, 1, 3):
        for mask, found in zip(keep, grown(keep, distance), strict=True):
            missing = place[~mask.flatten()]
            near = (torch.cdist(place, missing) <= distance).any(dim=1)
            assert torch.equal(found.flatten(), ~near)


def test_a_mask_and_the_first_sample_of_one_seed_are_independent() -> None:
    generator = Noise(3, [(0, 0)]).generators[0]
    same_numbers = torch.ones(100, dtype=torch.bool)
    same_numbers[torch.randperm(100, generator=generator)[:50]] = False
    keep = random_keep((1, 1, 10, 10), 0.5, 3)
    assert not torch.equal(keep.flatten(), same_numbers)
    assert torch.equal(keep[0], random_keep((2, 1, 10, 10), 0.5, 3)[0])
