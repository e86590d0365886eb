"""Anscombe transform and a denoiser, against the transform written out."""

import pytest
import torch
from small import Shrink, batch

from genprior import degrade, restore
from genprior.core.metrics import psnr
from genprior.inverse.baselines.anscombe import Anscombe
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising


def test_poisson_noise_is_stabilised_denoised_and_inverted():
    peak, x = 20, batch()
    y = degrade(x, Denoising(), f"poisson={peak}")
    result = restore(y, Denoising(), Shrink(), Anscombe(), f"poisson={peak}")
    low, high = (2 * (n + 3 / 8) ** 0.5 for n in (0, peak))
    z = (2 * (peak * y.double() + 3 / 8).sqrt() - low) / (high - low)
    sigma2 = 1 / (high - low) ** 2
    d = ((z / 16 + 0.5 * sigma2) / (1 / 16 + sigma2)) * (high - low) + low
    root = 1.5**0.5
    counts = d**2 / 4 + root / (4 * d) - 11 / (8 * d**2) + 5 * root / (8 * d**3) - 1 / 8
    torch.testing.assert_close(result.image.double(), counts / peak, rtol=0, atol=1e-5)
    assert psnr(result.image, x).mean() > psnr(y, x).mean()


def test_white_noise_is_denoised():
    y = batch()
    result = restore(y, Denoising(), Shrink(), Anscombe(views=1), 0.1)
    torch.testing.assert_close(result.image, Shrink().denoise(y, 0.1))


def test_blur_is_refused():
    with pytest.raises(ValueError, match="Anscombe is not made for a measurement by Blur"):
        restore(batch(), Blur(torch.ones(3, 3)), Shrink(), Anscombe(), 0.1)
