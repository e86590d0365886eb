"""PSNR and SSIM against scikit-image; scores of holes and samples against their definitions."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from genprior.core.metrics import (
    border_jump,
    central_interval,
    coverage,
    crps,
    gradient_ratio,
    hole_psnr,
    interval_width,
    patch_distance,
    psnr,
    rank_histogram,
    ssim,
)


def pair(channels: int, size: tuple[int, int] = (19, 30)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(channels)
    reference = torch.rand(3, channels, *size, generator=generator, dtype=torch.float64)
    reference[0] = reference[0] / 50 + 0.9  # nearly flat and bright: variances cancel
    noise = torch.randn(reference.shape, generator=generator, dtype=torch.float64)
    return reference + noise * torch.tensor([0.01, 0.1, 0.5]).reshape(3, 1, 1, 1), reference


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_metrics_equal_scikit_image(channels: int, data_range: float) -> None:
    x, reference = (image * data_range for image in pair(channels))
    for i in range(3):
        a, b = (image[i].permute(1, 2, 0).numpy() for image in (x, reference))
        expected = structural_similarity(a, b, channel_axis=2, data_range=data_range)
        assert ssim(x, reference, data_range)[i].item() == pytest.approx(expected, abs=1e-10)
        expected = peak_signal_noise_ratio(b, a, data_range=data_range)
        assert psnr(x, reference, data_range)[i].item() == pytest.approx(expected, abs=1e-10)


def test_ssim_of_float32_is_computed_in_float64() -> None:
    x, reference = (image.float() for image in pair(3))
    a, b = (image[0].permute(1, 2, 0).double().numpy() for image in (x, reference))
    expected = structural_similarity(a, b, channel_axis=2, data_range=1)
    value = ssim(x, reference)
    assert value.dtype == torch.float32
    assert value[0].item() == pytest.approx(expected, abs=1e-6)


def test_equal_images() -> None:
    x = torch.rand(2, 3, 7, 7)
    assert psnr(x, x).tolist() == [math.inf, math.inf]
    assert ssim(x, x).numpy() == pytest.approx(np.ones(2), abs=1e-6)


def test_errors_name_the_shapes() -> None:
    with pytest.raises(ValueError, match=r"got \[1, 3, 8, 8\] and \[1, 1, 8, 8\]"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\)"):
        ssim(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="images of 6 x 20 are too small"):
        ssim(torch.zeros(1, 3, 20, 6), torch.zeros(1, 3, 20, 6))


def test_coverage_of_exchangeable_samples_is_the_expected_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (4, 19, 25):
        drawn = torch.randn(2, count + 1, 1, 150, 150, generator=generator)
        _, promised = central_interval(count)
        got = coverage(drawn[:, 1:], drawn[:, 0])
        assert (got - promised).abs().max() < 4 * (promised * (1 - promised) / 22_500) ** 0.5


def test_known_pixels_do_not_count_in_the_coverage() -> None:
    samples = torch.zeros(2, 3, 1, 2, 2)
    samples[0, :, 0, 0, 0] = torch.tensor([0.1, 0.2, 0.3])
    truth = torch.full((2, 1, 2, 2), 0.2)
    share = coverage(samples, truth)
    assert share[0] == 1 and math.isnan(share[1])


def test_crps_equals_its_definition_and_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(2, 5, 1, 3, 4, generator=generator)
    truth = torch.rand(2, 1, 3, 4, generator=generator)
    for i in range(2):
        error = (samples[i] - truth[i]).abs().mean()
        pairs = (samples[i][:, None] - samples[i][None]).abs().sum(dim=(0, 1)).mean()
        assert crps(samples, truth)[i].item() == pytest.approx(
            (error - pairs / (2 * 5 * 4)).item(), abs=1e-7
        )
        partners = (samples[i][[0, 1]] - samples[i][[2, 3]]).abs().sum(dim=0).mean()
        assert crps(samples, truth, antithetic=True)[i].item() == pytest.approx(
            (error - (pairs - 2 * partners) / (2 * (5 * 4 - 4))).item(), abs=1e-7
        )
    # Gneiting and Raftery: CRPS(N(0, 1), 0) = (sqrt(2) - 1) / sqrt(pi)
    many = torch.randn(1, 40, 1, 100, 100, generator=generator)
    expected = (2**0.5 - 1) / math.pi**0.5
    assert crps(many, torch.zeros(1, 1, 100, 100)).item() == pytest.approx(expected, abs=3e-3)


def hole_of(size: tuple[int, int]) -> torch.Tensor:
    hole = torch.zeros(1, 1, *size, dtype=torch.bool)
    hole[..., 5:12, 9:20] = True
    return hole


def test_rank_histogram_by_its_definition() -> None:
    drawn = [[1.0, 2.0, 3.0], [4.0, 2.0, 3.0], [2.0, 2.0, 3.0]]
    samples = torch.tensor(drawn)[None, :, None, None]
    reference = torch.tensor([2.5, 2.0, 9.0])[None, None, None]
    # ranks: 2 of 3 below in the first pixel; the others have equal samples and do not count
    assert rank_histogram(samples, reference).tolist() == [[0, 0, 1, 0]]
    tied = torch.tensor([2.0, 2.0, 9.0])[None, None, None]
    assert rank_histogram(samples, tied).tolist() == [[0, 0.5, 0.5, 0]]
    drawn = torch.randn(2, 8, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    flat = rank_histogram(drawn[:, :7], drawn[:, 7])
    assert flat.sum(dim=1).tolist() == pytest.approx([1, 1])
    assert (flat - 1 / 8).abs().max() < 5 * (1 / 8 * 7 / 8 / 200**2) ** 0.5


def test_interval_width_of_normal_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = 3 * torch.randn(1, 399, 1, 60, 60, generator=generator)
    known = torch.cat([samples, torch.ones(1, 399, 1, 60, 1)], dim=4)  # does not count
    assert interval_width(known).item() == pytest.approx(2 * 1.645 * 3, rel=0.02)


def test_psnr_in_a_hole_is_that_of_the_crop() -> None:
    x, reference = pair(3)
    crop = (slice(None), slice(None), slice(5, 12), slice(9, 20))
    found = hole_psnr(x, reference, hole_of((19, 30)))
    torch.testing.assert_close(found, psnr(x[crop], reference[crop]))


@pytest.mark.parametrize("channels", [1, 3])
def test_patch_distance_of_a_scaled_texture(channels: int) -> None:
    _, reference = pair(channels, (40, 44))
    hole = torch.zeros(1, 1, 40, 44, dtype=torch.bool)
    hole[..., 8:32, 8:36] = True
    # sorted projections scale too: (1 - a) times the RMS of projections of the patches
    windows = np.lib.stride_tricks.sliding_window_view(reference.numpy(), (7, 7), axis=(2, 3))
    patches = windows[:, :, 5:29, 5:33]
    patches = patches - patches.mean(axis=(-2, -1), keepdims=True)
    rms = np.sqrt((patches**2).mean(axis=(1, 2, 3, 4, 5)))  # mean over all directions
    found = patch_distance(0.4 * reference + 0.3, reference, hole, directions=4000)
    np.testing.assert_allclose(found, 0.6 * rms, rtol=0.03)


def test_patch_distance_ignores_where_the_texture_is() -> None:
    generator = torch.Generator().manual_seed(2)
    texture = torch.rand(1, 1, 4, 4, generator=generator, dtype=torch.float64).repeat(1, 1, 8, 8)
    hole = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    hole[..., 8:24, 8:24] = True  # whole periods
    moved = texture.roll((1, 2), (2, 3))
    assert patch_distance(moved, texture, hole).item() < 1e-12
    assert patch_distance(texture + 0.2, texture, hole).item() < 1e-12
    assert patch_distance(0 * texture, texture, hole).item() > 0.1
    assert patch_distance(texture[..., :5, :], texture[..., :5, :], hole[..., :5, :]).isnan()


def differences(x: np.ndarray, hole: np.ndarray, counted: Callable) -> list[float]:
    """Values that a rule counts, over all channels and neighbours of an image."""
    found = []
    rows, columns = hole.shape
    for i in range(rows):
        for j in range(columns):
            for k, m in ((i + 1, j), (i, j + 1)):
                if k < rows and m < columns and counted((i, j), (k, m)):
                    found += list(x[:, i, j] - x[:, k, m])
    return found


def test_gradient_and_jump_by_their_definitions() -> None:
    x, _ = pair(3)
    mask = hole_of((19, 30))
    hole = mask[0, 0].numpy()
    place = np.argwhere(hole)
    ring = np.array([[not hole[i, j] and abs(place - (i, j)).max(axis=1).min() <= 4
                      for j in range(30)] for i in range(19)])
    beside = np.array([[any(0 <= a < 19 and 0 <= b < 30 and hole[a, b] != hole[i, j]
                            for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)))
                        for j in range(30)] for i in range(19)])
    for image, ratio, jump in zip(
        x.numpy(), gradient_ratio(x, mask, ring=4), border_jump(x, mask), strict=True
    ):
        inner = differences(image, hole, lambda a, b: hole[a] and hole[b])
        outer = differences(image, hole, lambda a, b: ring[a] and ring[b])
        assert ratio.item() == pytest.approx(
            math.sqrt(np.mean(np.square(inner)) / np.mean(np.square(outer)))
        )
        across = differences(image, hole, lambda a, b: hole[a] != hole[b])
        along = differences(
            image, hole, lambda a, b: hole[a] == hole[b] and beside[a] and beside[b]
        )
        assert jump.item() == pytest.approx(np.abs(across).mean() / np.abs(along).mean())


def test_scores_of_a_hole_in_a_constant_image_are_undefined() -> None:
    x, hole = torch.full((1, 3, 19, 30), 0.5), hole_of((19, 30))
    assert gradient_ratio(x, hole).isnan() and border_jump(x, hole).isnan()
    assert hole_psnr(x, x, torch.zeros_like(hole)).isnan()
