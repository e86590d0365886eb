import pytest
import torch
from torch import Tensor

from genprior.core.patch_match import _local_contrast, _Scale, _State, fill_from_patches
from genprior.core.pull_push import pull_push


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=stream(5))


def box(size: int, first: int, last: int) -> Tensor:
    known = torch.ones(size, size, dtype=torch.bool)
    known[first:last, first:last] = False
    return known


def test_a_periodic_texture_is_continued() -> None:
    tile = noise(3, 6, 8)
    x, known = tile.repeat(1, 8, 6), box(48, 16, 32)
    fill = fill_from_patches(torch.where(known, x, torch.nan).nan_to_num(9.0), known, stream())
    right = (fill.image - x).abs().amax(dim=0) < 1e-6
    assert right.float().mean() > 0.99
    assert fill.mismatch < 0.05


def test_every_pixel_of_the_hole_is_a_copy_of_a_known_one() -> None:
    x, known = noise(3, 30, 37), torch.ones(30, 37, dtype=torch.bool)
    known[10:20, 0:12] = False  # at the border of the image
    fill = fill_from_patches(x, known, stream())
    assert torch.equal(fill.image[:, known], x[:, known])
    colours = {tuple(colour) for colour in x[:, known].T.tolist()}
    assert all(tuple(colour) in colours for colour in fill.image[:, ~known].T.tolist())


def test_the_seed_decides() -> None:
    x, known = noise(1, 32, 32), box(32, 10, 22)
    first, same, other = (fill_from_patches(x, known, stream(seed)).image for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_search_nearly_finds_the_most_similar_patches() -> None:
    x = pull_push(noise(1, 1, 28, 28), (noise(1, 1, 28, 28) > 0.7).float())[0]
    scale = _Scale(x, box(28, 10, 18), 5, mirror=False)
    start = _State(scale.start(), scale.random_sources(len(scale.targets), stream()))
    found = scale.search(start, stream(), rounds=200)
    distance = scale.distances(found.image, scale.confidence, scale.targets, found.source)
    targets = scale.targets
    best = torch.stack([
        scale.distances(found.image, scale.confidence, targets, each.expand_as(targets))
        for each in scale.sources
    ]).amin(dim=0)
    assert (distance >= best - 1e-7).all()
    assert distance.mean() < 1.1 * best.mean()


def test_a_mirrored_image_is_a_source() -> None:
    half = noise(1, 32, 16)
    x = torch.cat([half, half.flip(-1)], dim=-1)
    known = torch.ones(32, 32, dtype=torch.bool)
    known[12:20, 4:12] = False
    plain, mirrored = (
        fill_from_patches(x, known, stream(), mirror=mirror).image for mirror in (False, True)
    )
    error = [(image - x).abs()[:, ~known].mean() for image in (plain, mirrored)]
    assert error[1] < 0.05 < error[0]


def test_differences_are_those_of_the_copies() -> None:
    x, known = noise(2, 40, 40), box(40, 14, 26)
    scale = _Scale(x, known, 3, mirror=False)
    left = scale.targets % scale.width - scale.radius < 20
    # the left half is copied from 12 rows above, the right half from 12 rows below
    source = scale.targets + torch.where(left, -12, 12) * scale.width
    down, right = scale.differences(_State(scale.start(), source))
    above, below = x.roll(12, -2), x.roll(-12, -2)
    assert torch.equal(down[:, 13:26, 14:20], above.diff(dim=-2)[:, 13:26, 14:20])
    assert torch.equal(down[:, 13:26, 20:26], below.diff(dim=-2)[:, 13:26, 20:26])
    assert torch.equal(right[:, 14:26, 13:19], above.diff(dim=-1)[:, 14:26, 13:19])
    assert torch.equal(right[:, 14:26, 20:26], below.diff(dim=-1)[:, 14:26, 20:26])
    a, b = (y.diff(dim=-1)[:, 14:26, 19] for y in (above, below))
    assert torch.equal(right[:, 14:26, 19], torch.where(a.abs() > b.abs(), a, b))


def test_the_local_contrast_is_the_mean_of_known_differences() -> None:
    x, known = noise(3, 20, 20), box(20, 4, 9)
    contrast = _local_contrast(x, known)
    steps = x.diff(dim=-1).abs().mean(dim=0)[5:12, 5:12]
    both = (known[:, 1:] & known[:, :-1])[5:12, 5:12]
    assert contrast[1, 8, 8] == pytest.approx(steps[both].mean().item(), rel=1e-5)


def test_the_contrast_of_the_surroundings_goes_on() -> None:
    rows = torch.arange(96)[:, None].expand(96, 96)
    x = torch.where(rows < 48, 0.5, 0.5 + 0.3 * (noise(1, 96, 96) - 0.5))
    known = box(96, 24, 72)
    filled = fill_from_patches(x, known, stream()).image
    ratio = filled[:, 60:72, 24:72].std() / x[:, 60:72, 24:72].std()
    assert 0.8 < ratio < 1.2


@pytest.mark.parametrize("size", [(1, 2), (2, 9), (9, 9)])
def test_images_without_a_known_patch_are_filled_smoothly(size: tuple[int, int]) -> None:
    x, known = noise(3, *size), torch.zeros(size, dtype=torch.bool)
    known[0, 0] = True
    fill = fill_from_patches(x, known, stream())
    assert fill.mismatch == torch.inf
    assert torch.equal(fill.image, pull_push(x[None], known[None, None].float())[0])
    assert torch.equal(fill.down, fill.image.diff(dim=-2))


def test_a_hole_larger_than_half_of_the_image_and_a_constant_image() -> None:
    known = torch.zeros(40, 40, dtype=torch.bool)
    known[:, :12] = True
    assert fill_from_patches(noise(3, 40, 40), known, stream()).image.isfinite().all()
    grey = torch.full((1, 40, 40), 0.25)
    fill = fill_from_patches(grey, known, stream())
    assert torch.equal(fill.image, grey) and fill.mismatch == 0


def test_even_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="odd number of pixels >= 3, got 4"):
        fill_from_patches(noise(1, 8, 8), box(8, 3, 5), stream(), patch=4)
