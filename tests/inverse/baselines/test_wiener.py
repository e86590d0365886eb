import numpy as np
import pytest
import torch
from shell import photo
from skimage.restoration import richardson_lucy

from genprior.api.restoration import degrade, restore
from genprior.core.metrics import psnr
from genprior.inverse.baselines.wiener import RichardsonLucy, Wiener
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.kernels import gaussian_kernel, motion_kernel


def picture(size: int = 64) -> torch.Tensor:
    return torch.from_numpy(photo(size=(size, size)) / 255).float().permute(2, 0, 1)[None]


def test_a_circular_blur_is_divided_out_in_the_fourier_domain():
    x, operator = picture(32), Blur(gaussian_kernel(1.0), "circular")
    y = degrade(x, operator, 0.02)
    result = restore(y, operator, None, Wiener(balance=0.03), noise_std=0.02).image
    kernel = np.zeros((32, 32))
    h, w = operator.kernel.shape[-2:]
    kernel[:h, :w] = operator.kernel[0, 0]
    k = np.fft.fft2(np.roll(kernel, (-(h // 2), -(w // 2)), (0, 1)))
    f = 2 * np.pi * np.fft.fftfreq(32)
    laplacian = 4 - 2 * np.cos(f)[:, None] - 2 * np.cos(f)
    gain = k.conj() / (abs(k) ** 2 + 0.03 * laplacian**2)
    expected = np.fft.ifft2(gain * np.fft.fft2(y[0].double().numpy())).real
    assert np.abs(result[0].double().numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("boundary", ["valid", "reflect", "replicate"])
@pytest.mark.parametrize("kernel", [gaussian_kernel(1.2), motion_kernel(6, 30)], ids=["g", "m"])
def test_other_boundaries_do_not_shift_the_picture(boundary, kernel):
    x, operator = picture(), Blur(kernel, boundary)
    y = degrade(x, operator, 0.005)
    result = restore(y, operator, None, Wiener(0.01), noise_std=0.005).image
    truth = operator.crop_margin(x)
    inside = (..., slice(12, -12), slice(12, -12))
    gain = psnr(result[inside], truth[inside]) - psnr(y[inside], truth[inside])
    assert gain.item() > 2


def test_richardson_lucy_equals_scikit_images_far_from_the_border():
    x, kernel = picture(), motion_kernel(5, 20)
    y = Blur(kernel, "reflect").A(x)
    result = restore(y, Blur(kernel, "reflect"), None, RichardsonLucy(3)).image
    # What is beyond the border moves in by two kernels an iteration.
    for channel in range(3):
        image = y[0, channel].double().numpy()
        expected = richardson_lucy(image, kernel.numpy(), 3, clip=False)
        assert np.abs(result[0, channel].numpy() - expected)[26:-26, 26:-26].max() < 1e-5


@pytest.mark.parametrize("kernel", [gaussian_kernel(1.6), motion_kernel(9, 30)])
@pytest.mark.parametrize("boundary", ["valid", "reflect", "circular"])
def test_richardson_lucy_sharpens_to_the_border(kernel: torch.Tensor, boundary: str):
    x, operator = picture(), Blur(kernel, boundary)
    y = degrade(x, operator, 0.01)
    result = restore(y, operator, None, RichardsonLucy(), noise_std=0.01).image
    assert result.max() < 2
    truth = operator.crop_margin(x)
    assert psnr(result, truth) > psnr(y, truth) + 1


def test_only_blurs_are_taken():
    for solver in (Wiener(), RichardsonLucy()):
        with pytest.raises(ValueError, match="is not made for a measurement by Denoising"):
            restore(picture(16), Denoising(), None, solver)
