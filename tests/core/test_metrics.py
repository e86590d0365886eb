"""PSNR and SSIM against scikit-image; coverage and CRPS against their definitions."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from genprior.core.metrics import central_interval, coverage, crps, psnr, ssim


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
