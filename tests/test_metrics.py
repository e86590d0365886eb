"""PSNR and SSIM against scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from genprior.metrics import psnr, ssim


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
