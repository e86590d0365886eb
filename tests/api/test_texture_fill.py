from typing import Any

import pytest
import torch
from torch import Tensor

from genprior.api import texture_fill
from genprior.api.factory import make_solver
from genprior.api.restoration import restore
from genprior.api.texture_fill import add_texture, check_fill
from genprior.core.errors import RestorationWarning, SettingError
from genprior.core.metrics import border_jump, gradient_ratio
from genprior.core.patch_match import fill_from_patches
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.priors.external.callable import External

MEAN = External(lambda u, sigma: u.mean((2, 3), keepdim=True).expand_as(u))


def photo(batch: int = 1) -> Tensor:
    """Returns a weave with a period of 8 x 6 pixels that is darker to the left."""
    tile = torch.rand(batch, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    return (0.2 * tile.repeat(1, 1, 6, 8) + torch.linspace(0.3, 0.7, 48)).contiguous()


def holes(*boxes: tuple[int, int, int, int]) -> Inpainting:
    keep = torch.ones(1, 1, 48, 48)
    for top, bottom, left, right in boxes:
        keep[..., top:bottom, left:right] = 0
    return Inpainting(keep)


WIDE, SCRATCH = (14, 34, 14, 34), (2, 6, 2, 44)


def smooth(x: Tensor, operator: Inpainting) -> Tensor:
    return operator.keep_known(x.mean((1, 2), keepdim=True).expand_as(x), x)


def test_a_hole_gets_the_texture_of_its_surroundings_and_no_seam() -> None:
    x, operator = photo(), holes(WIDE)
    given, hole = smooth(x, operator), operator.mask == 0
    filled, doubts = add_texture(given, operator, "texture", 0, [(0, 0)])
    assert torch.equal(filled[:, :, ~hole[0, 0]], x[:, :, ~hole[0, 0]]) and not doubts
    assert gradient_ratio(given, hole) < 0.15 and 0.8 < gradient_ratio(filled, hole) < 1.2
    assert border_jump(filled, hole) < 1.2
    errors = [(image - x)[..., hole[0, 0]].square().mean() for image in (filled, given)]
    assert errors[0] < 0.25 * errors[1]


def test_auto_leaves_thin_holes_and_unlike_surroundings() -> None:
    x, both = photo(), holes(WIDE, SCRATCH)
    given = smooth(x, both)
    filled, _ = add_texture(given, both, "auto", 0, [(0, 0)])
    assert torch.equal(filled[..., :10, :], given[..., :10, :])
    assert not torch.equal(filled, given)
    textured, _ = add_texture(given, both, "texture", 0, [(0, 0)])
    assert not torch.equal(textured[..., :10, :], given[..., :10, :])
    noise = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    same, doubts = add_texture(noise, holes(WIDE), "auto", 0, [(0, 0)])
    assert torch.equal(same, noise)
    assert "no known patch resembles the surroundings of the hole" in doubts[0]


def test_the_search_depends_on_seed_image_and_sample_only() -> None:
    x, operator = photo(2), holes(WIDE)
    x = x + 0.05 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    both, _ = add_texture(x, operator, "texture", 1, [(4, 0), (7, 2)])
    alone, _ = add_texture(x[1:], operator, "texture", 1, [(7, 2)])
    other, _ = add_texture(x[1:], operator, "texture", 1, [(7, 0)])
    assert torch.equal(both[1:], alone) and not torch.equal(alone, other)


def test_patches_are_searched_near_the_hole_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def search(x: Tensor, *given: Any) -> Any:
        sizes.append(tuple(x.shape))
        return fill_from_patches(x, *given)

    monkeypatch.setattr(texture_fill, "fill_from_patches", search)
    x = photo().repeat(1, 1, 20, 1)  # 960 x 48 pixels
    keep = torch.ones_like(x[:, :1])
    keep[..., 20:40, 14:34] = keep[..., 900:920, 14:34] = 0
    operator = Inpainting(keep)
    filled, _ = add_texture(smooth(x, operator), operator, "auto", 0, [(0, 0)])
    assert len(sizes) == 2 and all(rows <= 320 for _, rows, _ in sizes)
    assert torch.equal(filled * keep, x * keep)
    for rows in (slice(0, 60), slice(880, 940)):
        assert gradient_ratio(filled[..., rows, :], operator.mask[..., rows, :] == 0) > 0.8


def test_no_known_patch_leaves_the_estimate_and_says_so() -> None:
    keep = torch.zeros(1, 1, 48, 48)
    keep[..., ::2, ::2] = 1
    filled, doubts = add_texture(photo(), Inpainting(keep), "texture", 0, [(0, 0)])
    assert torch.equal(filled, photo())
    assert "no patch of 3x3 pixels is known" in doubts[0]


def test_a_hole_larger_than_half_of_the_image_and_a_constant_image() -> None:
    x, operator = torch.full((1, 3, 48, 48), 0.25), holes((4, 48, 0, 36))
    filled, doubts = add_texture(x, operator, "texture", 0, [(0, 0)])
    assert torch.equal(filled, x) and not doubts
    given = photo()
    filled, doubts = add_texture(given, operator, "auto", 0, [(0, 0)])
    assert torch.equal(filled, given)
    assert "larger than its surroundings, so it is filled smoothly" in doubts[0]


def test_the_default_is_texture_in_wide_holes_of_a_default_point_estimate() -> None:
    x, operator = photo(), holes(WIDE)
    y = operator.A(x)

    def restored(**settings: Any) -> Tensor:
        return restore(y, operator, MEAN, steps=2, **settings).image

    plain, default = restored(fill="smooth"), restored()
    assert torch.equal(default, restored(fill="auto")) and not torch.equal(default, plain)
    assert torch.equal(restored(solver="hqs"), plain)
    assert torch.equal(restored(solver="hqs", fill="auto"), default)
    sampled = restored(samples=2)
    assert torch.equal(sampled, restored(samples=2, fill="smooth"))
    scratch = holes(SCRATCH)
    settings = {"prior": MEAN, "steps": 2}
    one, two = (restore(scratch.A(x), scratch, fill=f, **settings).image for f in (None, "smooth"))
    assert torch.equal(one, two)


def test_each_sample_has_its_own_patches() -> None:
    x, operator = photo(), holes(WIDE)
    x = x + 0.05 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    sampler = make_solver("diffpir", steps=2)
    result = restore(operator.A(x), operator, MEAN, sampler, samples=2, fill="texture")
    first, second = result.samples[0]
    hole = operator.mask[0, 0] == 0
    assert (first - second)[:, hole].abs().mean() > 0.005
    assert torch.equal(first[:, ~hole], second[:, ~hole])


def test_doubts_are_warnings_of_the_image() -> None:
    operator = holes(WIDE)
    y = operator.A(torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    with pytest.warns(RestorationWarning, match="image 0: no known patch resembles"):
        result = restore(y, operator, MEAN, steps=2)
    assert sum("resembles" in warning for warning in result.warnings) == 1


def test_other_operators_and_names_are_refused() -> None:
    with pytest.raises(SettingError, match="fill must be one of smooth, texture, auto"):
        check_fill("rough", holes(WIDE))
    with pytest.raises(SettingError, match="the operator is Denoising: use fill='smooth'"):
        restore(photo(), Denoising(), MEAN, noise_std=0.1, fill="texture")
