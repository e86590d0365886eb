import pytest
import torch
from torch import Tensor

from genprior.api.restoration import restore
from genprior.api.texture_fill import fill_with_texture
from genprior.core.errors import SettingError
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.priors.external.callable import External


def photo(batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def holes(*boxes: tuple[int, int, int, int]) -> Inpainting:
    keep = torch.ones(1, 1, 64, 64)
    for top, bottom, left, right in boxes:
        keep[..., top:bottom, left:right] = 0
    return Inpainting(keep)


def test_the_copies_become_known_pixels() -> None:
    x, operator = photo(), holes((16, 44, 16, 44))
    y = operator.A(x)
    filled, fuller, warnings = fill_with_texture(y, operator, "texture", 0, [0])
    before, after = operator.mask[0, 0] > 0, fuller.mask[0, 0] > 0
    assert (after | ~before).all() and not after.all()
    assert torch.equal(filled[..., before], y[..., before])
    assert not torch.equal(filled, y)
    result = restore(y, operator, External(lambda u, sigma: u), fill="texture", steps=4).image
    assert torch.equal(result[..., after], filled[..., after])


def test_auto_copies_into_wide_holes_only() -> None:
    x, operator = photo(), holes((16, 44, 16, 44), (2, 6, 2, 60))
    y = operator.A(x)
    filled, fuller, _ = fill_with_texture(y, operator, "auto", 0, [0])
    assert torch.equal(fuller.mask[..., :10, :], operator.mask[..., :10, :])
    assert fuller.mask.sum() > operator.mask.sum()
    scratch = holes((2, 6, 2, 60))
    same, mask, _ = fill_with_texture(scratch.A(x), scratch, "auto", 0, [0])
    assert torch.equal(same, scratch.A(x)) and torch.equal(mask.mask, scratch.mask)


def test_the_search_depends_on_seed_and_number_only() -> None:
    x, operator = photo(2), holes((16, 44, 16, 44))
    both, _, _ = fill_with_texture(operator.A(x), operator, "texture", 1, [4, 7])
    alone, _, _ = fill_with_texture(operator.A(x)[1:], operator, "texture", 1, [7])
    assert torch.equal(both[1:], alone)


def test_it_says_where_nothing_could_be_copied() -> None:
    keep = torch.zeros(1, 1, 64, 64)
    keep[..., ::2, ::2] = 1
    operator = Inpainting(keep)
    y = operator.A(photo())
    filled, same, warnings = fill_with_texture(y, operator, "texture", 0, [0])
    assert torch.equal(filled, y) and torch.equal(same.mask, operator.mask)
    assert "no patch of 3x3 pixels is known" in warnings[0]
    operator = holes((16, 44, 16, 44))
    _, _, warnings = fill_with_texture(operator.A(photo()), operator, "texture", 0, [0])
    assert "no known patch resembles the surroundings" in warnings[0]  # white noise


def test_other_operators_and_names_are_refused() -> None:
    with pytest.raises(SettingError, match="fill must be one of smooth, texture, auto"):
        fill_with_texture(photo(), holes((0, 9, 0, 9)), "rough", 0, [0])
    with pytest.raises(SettingError, match="the operator is Denoising: use fill='smooth'"):
        restore(photo(), Denoising(), External(lambda u, sigma: u), fill="texture")
