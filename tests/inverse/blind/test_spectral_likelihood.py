import math

import pytest
import scipy.optimize
import torch
import torch.nn.functional as F

from genprior.inverse.blind.spectral_likelihood import FALL, SpectralLikelihood
from genprior.operators.kernels import disc_kernel, gaussian_kernel, motion_kernel


def power_law(height, width, seed=0):
    """A Gaussian random image whose spectrum falls as the model says, (1, 1, H, W)."""
    white = torch.randn(2 * height, 2 * width, generator=torch.Generator().manual_seed(seed))
    v, u = torch.fft.fftfreq(2 * height)[:, None], torch.fft.rfftfreq(2 * width)[None]
    gain = torch.hypot(v, u).clamp(min=1 / width) ** (-FALL / 2)
    x = torch.fft.irfft2(torch.fft.rfft2(white) * gain, s=white.shape)
    x = x[:height, :width]
    return (0.5 + 0.15 * (x - x.mean()) / x.std())[None, None].double()


def measured(kernel, height=190, width=171, noise=0.005):
    x = power_law(height, width)
    y = F.conv2d(x, kernel[None, None].flip(-1, -2))
    return y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kernel", "kind", "expected", "tolerance"), [
    (gaussian_kernel(1.7), "gaussian", (1.7,), 0.1),
    (disc_kernel(4.5), "disc", (4.5,), 0.1),
    (motion_kernel(13, 65), "motion", (13, 65), 1.0),
    (motion_kernel(8, 170), "motion", (8, 170), 1.0),
])
def test_the_blur_of_an_image_that_follows_the_law_is_found(kernel, kind, expected, tolerance):
    likelihood = SpectralLikelihood(measured(kernel), 0.005)
    found = {name: likelihood.best(name, 21) for name in ("gaussian", "motion", "disc")}
    best = max(found.values(), key=lambda one: one.log_likelihood)
    assert best.kind == kind
    assert best.parameters == pytest.approx(expected, abs=tolerance)
    # the closed forms of |k^|^2 are nearly those of the kernels in pixels, which blurred y
    assert likelihood.of_kernel(kernel).item() > best.log_likelihood - 0.02


def test_the_amplitude_is_that_of_maximum_likelihood():
    kernel = gaussian_kernel(1.0)
    likelihood = SpectralLikelihood(measured(kernel), 0.005)
    gain = torch.exp(-((2 * math.pi * likelihood.f) ** 2))

    def negative(log_c):
        model = math.exp(log_c) * gain / likelihood.f**FALL + 0.005**2
        return (model.log() + likelihood.power / model).mean().item()

    expected = scipy.optimize.minimize_scalar(negative, bounds=(-30, 5), method="bounded")
    assert likelihood(gain[None]).item() == pytest.approx(-expected.fun, abs=1e-6)


def test_a_quarter_turn_is_that_of_the_pixels():
    kernel = motion_kernel(9, 30) + 0.01 * gaussian_kernel(0.5).sum()
    likelihood = SpectralLikelihood(measured(motion_kernel(9, 30)), 0.005)
    turned = likelihood.of_kernel(kernel, [90.0], [1.0])
    torch.testing.assert_close(turned, likelihood.of_kernel(kernel.rot90()))
    assert turned < likelihood.of_kernel(kernel)


def test_the_noise_is_seen_in_the_corner_of_the_spectrum():
    likelihood = SpectralLikelihood(measured(disc_kernel(5.0), noise=0.02))
    assert likelihood.noise_std == pytest.approx(0.02, rel=0.05)


def test_an_image_of_few_pixels_gives_finite_numbers():
    likelihood = SpectralLikelihood(power_law(5, 4))
    assert likelihood.of_kernel(gaussian_kernel(0.4)).isfinite().all()
