import numpy as np
import pytest
import torch

from genprior.core.symmetries import turn, turn_back


def test_turns_are_the_eight_symmetries_of_the_square() -> None:
    x = torch.arange(18.0).reshape(1, 2, 3, 3)
    views = {tuple(turn(x, k).flatten().tolist()) for k in range(8)}
    expected = set()
    for flip in (False, True):
        image = np.flip(x.numpy(), axis=-1) if flip else x.numpy()
        for quarter in range(4):
            expected.add(tuple(np.rot90(image, quarter, axes=(-2, -1)).flatten().tolist()))
    assert views == expected


@pytest.mark.parametrize("k", range(-3, 17))
def test_turn_back_is_the_inverse(k: int) -> None:
    x = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    assert torch.equal(turn_back(turn(x, k), k), x)
    assert torch.equal(turn(turn_back(x.mT, k), k), x.mT)
    assert torch.equal(turn(x, k), turn(x, k % 8))


def test_turns_are_orthogonal() -> None:
    generator = torch.Generator().manual_seed(0)
    x, v = (torch.randn(2, 1, 4, 4, generator=generator) for _ in range(2))
    for k in range(8):
        torch.testing.assert_close((turn(x, k) * v).sum(), (x * turn_back(v, k)).sum())
