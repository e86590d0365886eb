import pytest
import torch
from oracles import Dense
from small import Shrink

from genprior import load_prior, restore
from genprior.core.metrics import psnr
from genprior.inverse.plug_and_play import multi_scale
from genprior.inverse.plug_and_play.multi_scale import FACTORS, multi_scale_mean
from genprior.operators.denoising import Denoising
from genprior.operators.noise_models import CorrelatedNoise, IndependentNoise, WhiteNoise
from genprior.operators.whitened import Whitened
from genprior.priors.base import Denoiser


class Recorder(Denoiser):
    """Returns its input, and records the sizes and the levels."""

    symmetries = (0, 5)

    def __init__(self):
        self.calls = []

    def denoise(self, x, sigma):
        self.calls.append((tuple(x.shape[-2:]), sigma))
        return x


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def box(std=0.05):
    return Whitened(Denoising(), CorrelatedNoise.from_kernel(torch.ones(3, 3), std, floor=0.001))


def test_the_levels_are_those_of_the_noise_that_is_left():
    prior, op = Recorder(), Whitened(Denoising(), WhiteNoise([0.1, 0.2]))
    y = rand(2, 3, 64, 96)
    x = multi_scale_mean(y, op, prior, [0])
    # bands that are not changed add up to the image
    assert torch.allclose(x, y, atol=1e-5)
    (coarse, low), (middle, mid), (fine, high) = prior.calls
    assert (coarse, middle, fine) == ((16, 24), (32, 48), (64, 96))
    # a mean of 4 x 4 pixels has a quarter of the level; what the bicubic means of 2 x 2 leave
    assert torch.allclose(low, FACTORS[2] * torch.tensor([0.025, 0.05]), rtol=0.02)
    assert torch.allclose(mid, high / 2, rtol=0.02)
    assert 0.8 * 0.1 < high[0] / FACTORS[0] < 0.1


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 33), (65, 40)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size(size, channels):
    y = rand(1, channels, *size)
    op = box()
    x = multi_scale_mean(op.whiten(y), op, Recorder(), range(8))
    assert x.shape == y.shape
    assert torch.allclose(x, y, atol=1e-4)


def test_small_images_are_denoised_at_one_scale():
    prior = Recorder()
    multi_scale_mean(rand(1, 3, 31, 100), box(), prior, [0])
    assert [size for size, _ in prior.calls] == [(31, 100)]


def test_the_global_random_state_is_not_touched():
    state = torch.get_rng_state()
    multi_scale_mean(rand(1, 3, 32, 32), box(), Recorder(), [0])
    assert torch.equal(state, torch.get_rng_state())


def test_images_of_a_batch_are_independent(monkeypatch):
    monkeypatch.setattr(multi_scale, "SMALLEST", 2)
    prior, y = Dense(), rand(2, 3, 12, 10).double()
    c = torch.stack([box(s).noise.autocovariance[0, 0, 0] for s in (0.03, 0.1)])
    law = CorrelatedNoise(c[:, None, None] * torch.eye(3).reshape(1, 3, 3, 1, 1), floor=0.01)
    op = Whitened(Denoising(), law)
    together = multi_scale_mean(op.whiten(y), op, prior, [0])
    for i in range(2):
        one = op.select([i])
        alone = multi_scale_mean(one.whiten(y[i : i + 1]), one, prior, [0])
        assert torch.allclose(alone[0], together[i], atol=1e-9)


@pytest.mark.slow
def test_the_known_spectrum_gains_over_white_noise_of_the_same_level():
    from skimage import data

    x = torch.from_numpy(data.astronaut()[0:128, 150:278].copy()).permute(2, 0, 1)[None] / 255
    law = CorrelatedNoise.from_kernel(torch.ones(3, 3), 0.05)
    white = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y = x + law.colour(white)
    prior = load_prior("ddpm")
    known = restore(y, Denoising(), prior, noise_std=law)
    assumed = restore(y, Denoising(), prior, noise_std=0.05)
    assert psnr(known.image, x).item() > psnr(assumed.image, x).item() + 1.5
    assert known.solver == "posterior-mean"
    assert 0.8 < known.misfit.item() < 1.2


@pytest.mark.parametrize("size", [(24, 31), (150, 9)])
def test_a_level_for_each_pixel_fits_images_of_any_size(size: tuple[int, int]) -> None:
    y = torch.rand(1, 3, *size)
    law = IndependentNoise(torch.full_like(y, 0.1))
    result = restore(y, Denoising(), Shrink(), noise_std=law)
    assert result.image.shape == y.shape and result.image.isfinite().all()
