import numpy as np
import pytest
import torch
from shell import photo
from skimage.restoration import denoise_nl_means

from genprior.api.restoration import degrade, restore
from genprior.core.metrics import psnr
from genprior.inverse.baselines.non_local_means import NonLocalMeans
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising


def picture(size=48):
    return torch.from_numpy(photo(size=(size, size)) / 255).float().permute(2, 0, 1)[None]


def test_each_image_is_that_of_scikit_image_at_its_level():
    y = torch.cat([degrade(picture(), Denoising(), s) for s in (0.05, 0.1)])
    result = restore(y, Denoising(), None, NonLocalMeans(), [0.05, 0.1]).image
    for image, own, sigma in zip(y, result, (0.05, 0.1), strict=True):
        expected = denoise_nl_means(
            image.permute(1, 2, 0).double().numpy(), 5, 6, 0.6 * np.float32(sigma),
            sigma=np.float32(sigma), channel_axis=-1,
        )
        assert np.abs(own.permute(1, 2, 0).numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("law", ["poisson=10", "signal=0.02,0.001"])
def test_noise_that_depends_on_the_signal_is_stabilised(law):
    x = picture(64)
    y = degrade(x, Denoising(), law)
    gain = psnr(restore(y, Denoising(), None, NonLocalMeans(), law).image, x) - psnr(y, x)
    assert gain.item() > 4


def test_correlated_noise_counts_as_white():
    x = picture()
    y = degrade(x, Denoising(), "correlated=0.05,3")
    ours = restore(y, Denoising(), None, NonLocalMeans(), "correlated=0.05,3").image
    white = restore(y, Denoising(), None, NonLocalMeans(), 0.05).image
    torch.testing.assert_close(ours, white, rtol=0, atol=1e-4)


def test_without_noise_nothing_changes_and_blur_is_refused():
    y = picture()[:, :1]
    assert torch.equal(NonLocalMeans().estimate(y, Denoising(), torch.zeros(1)), y)
    with pytest.raises(ValueError, match="NonLocalMeans is not made for a measurement by Blur"):
        restore(y, Blur(torch.ones(3, 3)), None, NonLocalMeans(), 0.1)
