"""A tiled denoiser equals the denoiser on the whole image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recording import Recording
from torch import Tensor

from genprior import degrade, load_prior, make_operator, make_solver, restore
from genprior.core.errors import SettingError
from genprior.core.pull_push import pull_push
from genprior.inverse.execution.memory import MemoryPolicy
from genprior.inverse.execution.tiled_denoiser import Tiled, blend, spans
from genprior.priors.ddpm import DDPM
from genprior.priors.nets.unet import UNet


@given(
    st.integers(1, 3000), st.integers(8, 60), st.sampled_from([1, 2, 8]), st.integers(0, 9)
)
def test_weights_of_tiles_sum_to_one(length: int, sides: int, stride: int, less: int) -> None:
    side = 8 * sides + less
    overlap = side // 2
    tiles = spans(length, side, overlap, stride)
    total = torch.zeros(length, dtype=torch.float64)
    for k, (start, end) in enumerate(tiles):
        assert start % stride == 0 and 0 < end - start <= side
        w = blend(tiles, k, overlap, total)
        total[start:end] += w
        rim = overlap // 4  # discarded at the inner edges of a tile
        assert start == 0 or not w[:rim].any()
        assert end == length or not w[len(w) - rim :].any()
    assert (total - 1).abs().max() < 1e-12


@pytest.fixture(scope="module")
def prior(weights) -> DDPM:
    return load_prior(weights).double()


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("depths", [(1, 1), (2, 1, 1), (1, 0, 2)])
def test_the_receptive_radius_of_a_network(depths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = UNet(1, [4] * len(depths), depths, embedding=8).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    size = network.multiple * (2 * network.receptive_radius // network.multiple + 4)
    farthest = 0
    for shift in range(network.multiple):
        x = noise(1, 1, 1, size).expand(1, 1, size, size).clone()
        c_noise = torch.zeros(1, dtype=torch.float64)
        before = network(x, c_noise)
        middle = size // 2 + shift
        x[..., :, middle] += 1
        changed = (network(x, c_noise) != before).any(dim=2).flatten().nonzero()
        farthest = max(farthest, int((changed - middle).abs().max()))
    assert farthest == network.receptive_radius


@pytest.mark.parametrize("size", [(150, 201), (64, 300), (129, 128)])
def test_tiles_are_the_whole_if_the_overlap_suffices(prior: DDPM, size: tuple[int, int]) -> None:
    x, sigma = noise(2, 3, *size), torch.tensor([0.1, 2.0], dtype=torch.float64)
    seen = Recording(prior)
    tiled = Tiled(seen, 128)  # overlap 64, of which 16 are discarded: the receptive radius is 11
    assert prior.receptive_radius == 11
    assert torch.allclose(tiled.denoise(x, sigma), prior.denoise(x, sigma), atol=1e-12)
    assert len(seen.seen) > 1 and max(map(max, seen.seen)) <= 128


def random_prior(**settings: bool) -> DDPM:
    """Returns a small prior whose weights are all random."""
    torch.manual_seed(0)
    prior = DDPM(widths=(4, 8), blocks=(1, 1), **settings).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return prior


def test_tiles_of_images_with_holes_are_the_whole() -> None:
    prior = random_prior(holes=True)
    x, sigma = noise(2, 3, 300, 201), torch.tensor([0.0, 0.2], dtype=torch.float64)
    unknown = torch.zeros(2, 1, 300, 201, dtype=torch.float64)
    unknown[0, :, :200, :190] = 1  # more than a tile
    unknown[1, :, 3:5, 7:9] = 1  # in one tile alone
    tiled = Tiled(prior, 128)
    assert tiled.is_inpainter
    whole = prior.denoise_masked(x, sigma, unknown)
    torch.testing.assert_close(tiled.denoise_masked(x, sigma, unknown), whole, rtol=0, atol=1e-12)


def test_tiles_of_unrolled_steps_are_the_whole() -> None:
    prior = random_prior(unrolled=True)
    x, sigma = noise(2, 3, 300, 201), torch.tensor([0.1, 0.2], dtype=torch.float64)
    tiled, whole = Tiled(prior, 128), prior.denoise_unrolled(x, sigma)
    assert tiled.is_unrolled and not torch.allclose(whole, prior.denoise(x, sigma))
    torch.testing.assert_close(tiled.denoise_unrolled(x, sigma), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", ["hqs", "posterior-mean"])
def test_a_hole_larger_than_a_tile_is_filled_from_around_it(solver: str) -> None:
    prior = DDPM(widths=(4, 8), blocks=(1, 1), holes=True)  # untrained: the identity
    keep = torch.ones(1, 1, 400, 400)
    keep[..., 50:350, 50:350] = 0
    y = torch.full((1, 3, 400, 400), 0.9) * keep
    operator = make_operator("inpaint", keep=keep)
    whole, tiles = (
        restore(y, operator, prior, solver, steps=4 if solver == "hqs" else None, tile=tile).image
        for tile in ("off", 128)
    )
    torch.testing.assert_close(tiles, whole, rtol=0, atol=1e-4)
    assert (tiles[..., 200, :] - 0.5).min() > 0.2


def test_gradients_go_through_tiles(prior: DDPM) -> None:
    x = noise(1, 3, 140, 40).requires_grad_()
    v = noise(1, 3, 140, 40)
    whole, tiles = (
        torch.autograd.grad(denoiser.denoise(x, 0.3), x, v)[0]
        for denoiser in (prior, Tiled(prior, 128))
    )
    assert torch.allclose(whole, tiles, atol=1e-12)


@pytest.mark.parametrize("task, settings", [
    ("deblur", {"kernel": torch.ones(5, 5), "boundary": "valid"}), ("denoise", {}),
    ("superres", {"factor": 2}),
])
@pytest.mark.parametrize("solver", ["hqs", "pigdm"])
def test_the_operator_acts_on_the_whole_image(weights, task, settings, solver) -> None:
    operator = make_operator(task, **settings)
    y = degrade(noise(1, 3, 144, 160).float(), operator, 0.02)
    seen = Recording(load_prior(weights))
    options = {"solver": solver, "noise_std": 0.02, "steps": 3}
    whole = restore(y, operator, seen, tile="off", **options)
    sizes = seen.seen.copy()
    tiles = restore(y, operator, seen, tile=128, **options)
    assert (whole.tile, tiles.tile) == (None, 128)
    assert min(map(max, sizes)) >= 144 and max(map(max, seen.seen[len(sizes):])) <= 128
    assert (whole.image - tiles.image).abs().max() < 1e-4
    assert whole.nfe == tiles.nfe == 3


@pytest.mark.parametrize(("solver", "whole", "large", "side"), [
    ("hqs", 1448, 1456, 1024), ("moment-matched", 832, 840, 591), ("smc", 208, 216, 256),
])
def test_gradients_and_particles_make_tiles_small(
    weights, solver: str, whole: int, large: int, side: int
) -> None:
    shown = MemoryPolicy(load_prior(weights), make_solver(solver), "auto")
    like = torch.zeros(())
    assert shown.fit(torch.Size((1, 3, whole, whole)), like)[1] is None
    limit = shown.fit(torch.Size((1, 3, 2048, 2048)), like)[1]
    assert limit == side
    assert shown.fit(torch.Size((1, 3, large, large)), like)[1] == (side if large > side else None)


def test_tile_errors(weights) -> None:
    denoise, y = make_operator("denoise"), noise(1, 1, 8, 8).float()
    with pytest.raises(SettingError, match="'off' or a side of at least 64 pixels, got 63"):
        restore(y, denoise, weights, tile=63)
    with pytest.raises(SettingError, match="got 'on'"):
        restore(y, denoise, weights, tile="on")
    from genprior import estimate_prior

    texture = estimate_prior("texture", noise(1, 1, 8, 8))
    with pytest.raises(SettingError, match="GaussianPosterior takes images as a whole"):
        restore(y, denoise, texture, noise_std=0.1, tile=64)
    with pytest.raises(ValueError, match="at least 64 pixels a side, got 8"):
        Tiled(texture, 8)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [2 / 255, 0.1, 0.5, 3.0, 50.0])
def test_the_shipped_weights_leave_no_seam(sigma: float) -> None:
    from skimage import data

    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255
    generator = torch.Generator().manual_seed(0)
    x = photo + sigma * torch.randn(photo.shape, generator=generator)
    prior = load_prior("ddpm")
    with torch.no_grad():
        difference = (prior.denoise(x, sigma) - Tiled(prior, 384).denoise(x, sigma)).abs().max()
    assert difference < 1 / 255


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_the_shipped_weights_leave_no_seam_in_a_hole(sigma: float) -> None:
    from skimage import data

    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255
    generator = torch.Generator().manual_seed(0)
    unknown = torch.zeros(1, 1, 512, 512)
    unknown[..., 200:300, 200:300] = 1
    x = photo + sigma * torch.randn(photo.shape, generator=generator)
    x, prior = pull_push(x, 1 - unknown), load_prior("ddpm")
    with torch.no_grad():
        whole, tiles = (p.denoise_masked(x, sigma, unknown) for p in (prior, Tiled(prior, 384)))
    assert (whole - tiles).abs().max() < 1 / 255
