import pytest
import torch
from torch import Tensor

from genprior.core.pull_push import density, pull_push

SIZES = [(1, 1), (1, 7), (5, 3), (31, 18), (64, 64)]


def scattered(size: tuple[int, int], share: float) -> Tensor:
    torch.manual_seed(0)
    known = (torch.rand(2, 1, *size) < share).float()
    known[..., -1, -1] = 1
    return known


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_a_constant_image_is_reproduced(size: tuple[int, int], share: float) -> None:
    colour = torch.tensor([[0.1, -0.4, 0.9], [0.7, 0.2, 0.0]])[:, :, None, None]
    known = scattered(size, share)
    filled = pull_push((colour * known).expand(-1, -1, *size), known)
    torch.testing.assert_close(filled, colour.expand_as(filled))


@pytest.mark.parametrize("size", SIZES)
def test_known_pixels_stay_and_unknown_ones_do_not_matter(size: tuple[int, int]) -> None:
    known = scattered(size, 0.4)
    x = torch.randn(2, 3, *size)
    filled = pull_push(x, known)
    other = pull_push(torch.where(known > 0, x, torch.nan), known)
    assert torch.equal(filled, other)
    assert torch.equal(torch.where(known > 0, filled, 0), torch.where(known > 0, x, 0))
    low, high = (f(torch.where(known > 0, x, 0)) for f in (torch.amin, torch.amax))
    assert (filled >= low - 1e-6).all() and (filled <= high + 1e-6).all()


def test_a_single_pixel_of_a_large_image_is_enough() -> None:
    known = torch.zeros(1, 1, 700, 900)
    known[..., 350, 17] = 1
    filled = pull_push(0.3 * known, known)
    torch.testing.assert_close(filled, torch.full_like(filled, 0.3))
    assert density(known).sum() == pytest.approx(1)


def test_images_without_known_pixels_become_zero() -> None:
    filled = pull_push(torch.full((1, 3, 9, 9), torch.nan), torch.zeros(1, 1, 9, 9))
    assert not filled.any()


def test_a_ramp_is_nearly_reproduced() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    known = scattered((64, 64), 0.3)[:1]
    filled = pull_push(ramp, known)
    assert (filled - ramp)[known == 0].abs().mean() < 0.01
    assert density(known).mean() == pytest.approx(0.3, abs=0.02)


def test_images_do_not_see_each_other() -> None:
    x, known = torch.randn(2, 3, 20, 30), scattered((20, 30), 0.3)
    both = pull_push(x, known)
    for i in range(2):
        assert torch.equal(pull_push(x[i : i + 1], known[i : i + 1]), both[i : i + 1])
