import numpy as np
import pytest
import torch
from shell import sidecar, succeed
from skimage import data
from small import Shrink, batch

from genprior import degrade, make_operator, restore
from genprior.api import noise_law
from genprior.api.noise_law import CameraNoise, camera_noise, noise_model
from genprior.core.errors import RestorationWarning, SettingError
from genprior.core.metrics import psnr
from genprior.inverse.baselines.identity import Measurement
from genprior.inverse.baselines.wiener import RichardsonLucy
from genprior.inverse.plug_and_play.posterior_mean import PosteriorMean
from genprior.io.images import read_image, write_image
from genprior.operators.denoising import Denoising
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.noise_models import (
    CorrelatedNoise,
    IndependentNoise,
    PoissonNoise,
    SignalDependentNoise,
    WhiteNoise,
)


def photo():
    """A photo with flat parts and texture, as 8 bits leave it, (1, 3, 256, 256)."""
    crop = data.astronaut()[:256, 100:356].copy()
    return torch.from_numpy(crop).permute(2, 0, 1)[None] / 255


def ramp():
    """A smooth image from dark to bright."""
    return torch.linspace(0.1, 0.9, 256).expand(1, 3, 256, 256).contiguous()


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def box(std):
    return CorrelatedNoise.from_kernel(torch.ones(3, 3), std)


@pytest.mark.parametrize("std", [0.02, 0.05])
def test_correlated_noise_is_found(std):
    y = photo() + box(std).colour(normal(1, 3, 256, 256))
    found = camera_noise(y)
    assert std / 1.5 < found.level < 1.5 * std  # one of four ranges of intensity is texture
    assert found.correlation == pytest.approx(2 / 3, abs=0.15)
    assert found.correlated(0.003) is found
    assert found.describe().startswith("correlated over 2 px")


def test_the_law_of_smooth_images_is_that_of_the_noise():
    law = box(0.03)
    found = camera_noise(ramp() + law.colour(normal(1, 3, 256, 256)))
    c = noise_model([found], torch.zeros(1), 3).autocovariance[0]
    truth = law.autocovariance[0, 0, 0]
    middle = c.shape[-1] // 2
    near = slice(middle - 2, middle + 3)
    for i in range(3):
        assert (c[i, i][near, near] - truth).abs().max() < 0.2 * truth.max()
        assert c[i, i - 1].abs().max() < 0.1 * truth.max()
    assert noise_model([found], torch.zeros(1), 3).level(ramp()).item() == pytest.approx(
        0.03, rel=0.1
    )


@pytest.mark.parametrize("std", [5 / 255, 25 / 255])
def test_white_noise_is_not_taken_as_correlated(std):
    y = photo() + std * normal(1, 3, 256, 256)
    found = camera_noise(y)
    assert found is None or not found.correlated(std)


def test_correlated_noise_is_found_beside_white_noise():
    y = photo() + box(0.05).colour(normal(1, 3, 256, 256))
    found = camera_noise(y).correlated(0.016)  # white noise that a prior sees in it
    assert found.level == pytest.approx(0.05, rel=0.2)
    assert found.correlation == pytest.approx(2 / 3, abs=0.15)
    assert camera_noise(y[:, :1]).correlated(0.016) is None  # one channel may be texture


def test_what_the_channels_have_in_common_is_no_noise():
    texture = box(0.05).colour(normal(1, 1, 256, 256, seed=1))
    white = camera_noise(ramp() + texture + 0.02 * normal(1, 3, 256, 256))
    assert white.level > 2 * 0.02 and white.correlation > 0.4 and not white.correlated(0.02)
    law = box(0.05)
    found = camera_noise(ramp() + texture + law.colour(normal(1, 3, 256, 256)))
    c = found.without_texture().autocovariance
    truth = law.autocovariance[0, 0, 0]
    for i in range(3):
        assert (c[i, i][5:10, 5:10] - truth).abs().max() < 0.2 * truth.max()
    assert c[0, 1].abs().max() == 0


def test_noise_that_is_stronger_in_the_dark_is_said():
    n = box(0.03).colour(normal(1, 3, 256, 256))
    dark = camera_noise(ramp() + n * (0.9 - 0.5 * ramp()))
    assert 1.3 < dark.levels[0] / dark.levels[-1] < 1.9
    assert dark.describe().endswith("stronger in the dark")
    light = camera_noise(ramp() + n * (0.4 + 0.5 * ramp()))
    assert light.describe().endswith("stronger in the light")
    assert "stronger" not in camera_noise(ramp() + n).describe()


def test_a_flat_channel_has_no_noise():
    y = ramp() + box(0.05).colour(normal(1, 3, 256, 256))
    y[:, 2] = 0.5
    assert camera_noise(y) is None


@pytest.mark.parametrize("image", [
    torch.zeros(1, 3, 256, 256), torch.ones(1, 3, 256, 256), torch.full((1, 3, 256, 256), 0.5),
    torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)),
    torch.rand(1, 1, 1, 1, generator=torch.Generator().manual_seed(0)),
], ids=["black", "white", "constant", "small", "pixel"])
def test_images_without_flat_patches_have_no_law(image):
    assert camera_noise(image) is None


class AnySize(Shrink):
    receptive_radius = 0

    def denoise(self, x, sigma):
        return x if x.shape[-1] < 256 else super().denoise(x, sigma)


def test_automatic_noise_is_correlated_for_those_images_only(monkeypatch):
    monkeypatch.setattr(noise_law, "assumed_noise",
                        lambda *_: torch.tensor([0.002, 0.03]))
    n = normal(1, 3, 256, 256)
    y = torch.cat([ramp() + box(0.03).colour(n), ramp() + 0.03 * n])
    both = restore(y, Denoising(), AnySize(), noise_std="auto")
    assert both.noise_found == ("correlated over 2 px", "")
    assert both.noise_std[0].item() == pytest.approx(0.03, rel=0.1)
    assert both.noise_std[1].item() == pytest.approx(0.03)
    white = restore(y[1:], Denoising(), AnySize(), noise_std=0.03)
    assert torch.equal(both.image[1], white.image[0])
    law = noise_model([camera_noise(y[:1])], torch.zeros(1), 3)
    known = restore(y[:1], Denoising(), AnySize(), noise_std=law)
    assert torch.allclose(both.image[0], known.image[0], atol=1e-5)
    assert not torch.allclose(known.image, restore(y[:1], Denoising(), AnySize(),
                                                   noise_std=0.03).image, atol=1e-3)


def test_samples_of_mixed_batches_keep_their_order(monkeypatch):
    monkeypatch.setattr(noise_law, "assumed_noise",
                        lambda *_: torch.tensor([0.002, 0.03]))
    n = normal(1, 3, 256, 256)
    y = torch.cat([ramp() + box(0.03).colour(n), ramp() + 0.03 * n])[..., :96]
    monkeypatch.setattr(AnySize, "denoise", Shrink.denoise)
    settings = {"solver": "diffpir", "samples": 2, "steps": 2, "noise_std": "auto"}
    both = restore(y, Denoising(), AnySize(), **settings)
    settings |= {"noise_std": 0.03, "index": 1}
    assert torch.equal(both.samples[1], restore(y[1:], Denoising(), AnySize(), **settings)
                       .samples[0])
    assert both.misfit.shape == (2,) and both.misfit.isfinite().all()


def test_an_image_without_a_flat_part_gives_a_warning(monkeypatch):
    monkeypatch.setattr(noise_law, "assumed_noise", lambda *_: torch.tensor([0.002]))
    monkeypatch.setattr(noise_law, "camera_noise", lambda y: None)
    y = 0.5 + box(0.05).colour(normal(1, 3, 256, 256))
    with pytest.warns(RestorationWarning, match="hardly any white noise was found"):
        restore(y, Denoising(), AnySize(), noise_std="auto")
    constant = noise_law.measured_noise("auto", 0.5 + 0 * y, Denoising(), AnySize())
    assert not constant.doubts


def test_noise_that_is_alike_in_all_channels_gives_a_warning(monkeypatch):
    monkeypatch.setattr(noise_law, "assumed_noise", lambda *_: torch.tensor([0.002]))
    n = box(0.03).colour(normal(1, 3, 256, 256))
    alike = ramp() + 0.3 * n + 0.95 * n[:, :1]
    with pytest.warns(RestorationWarning, match="alike in red, green and blue, as fine texture"):
        assert restore(alike, Denoising(), AnySize(), noise_std="auto").noise_found[0]
    for y in (ramp() + n, alike[:, :1]):  # a grey image has one channel
        found = noise_law.measured_noise("auto", y, Denoising(), AnySize())
        assert found.law is not None and not found.doubts


def test_a_law_of_white_noise_is_a_level():
    y = batch()
    law = restore(y, make_operator("denoise"), Shrink(), noise_std=WhiteNoise([0.1, 0.2]))
    number = restore(y, make_operator("denoise"), Shrink(), noise_std=[0.1, 0.2])
    assert torch.equal(law.image, number.image)


@pytest.mark.parametrize("law", [
    IndependentNoise(torch.full((12, 20), 0.1)), SignalDependentNoise(0.02, 0.001),
], ids=["map", "signal"])
def test_other_operators_take_laws(law):
    blur = make_operator("deblur", gaussian=1.0, boundary="circular")
    x = restore(batch(), blur, Shrink(), "hqs", law, steps=4)
    assert x.image.isfinite().all()
    if isinstance(law, IndependentNoise):  # the same level everywhere
        white = restore(batch(), blur, Shrink(), "hqs", 0.1, steps=4)
        assert torch.allclose(x.image, white.image, atol=1e-3)


def test_simulated_noise_has_its_law():
    x = torch.linspace(0.1, 0.9, 5).repeat_interleave(20000).reshape(1, 1, 5, -1).double()
    denoise = make_operator("denoise")
    for text, variance in (
        ("poisson=25", x / 25), ("signal=0.02,0.003", 0.02 * x + 0.003),
        ("correlated=0.1,3", 0.01 + 0 * x),
    ):
        n = degrade(x, denoise, text) - x
        assert torch.equal(n, degrade(x, denoise, text) - x)
        assert not torch.equal(n, degrade(x, denoise, text, index=1) - x)
        count = n.shape[-1] / (9 if text.startswith("corr") else 1)
        assert n.mean(dim=-1).abs().max() < 4.5 * (variance.max() / count) ** 0.5
        ratio = n.var(dim=-1) / variance[..., 0]
        assert (ratio - 1).abs().max() < 6 * (2 / count) ** 0.5
    counts = degrade(x, denoise, PoissonNoise(25)) * 25
    assert torch.allclose(counts, counts.round(), atol=1e-9)


def test_a_law_may_be_given_as_text():
    y = batch().clamp(0, 1)
    for text, law in (
        ("poisson=20", PoissonNoise(20)), ("signal=0.02,0.001", SignalDependentNoise(0.02, 0.001)),
        ("correlated=0.05,3", box(0.05)),
    ):
        ours = restore(y, Denoising(), Shrink(), noise_std=text).image
        assert torch.equal(ours, restore(y, Denoising(), Shrink(), noise_std=law).image)
    with pytest.raises(SettingError, match="is no law of noise: write poisson=PEAK"):
        restore(y, Denoising(), Shrink(), noise_std="gamma=2")
    with pytest.raises(SettingError, match="takes no noise level"):
        degrade(y, make_operator("jpeg", quality=20), "poisson=20")


def test_strong_noise_that_depends_on_the_signal_is_denoised_twice():
    x = 0.5 + 0.2 * normal(1, 1, 64, 64).clamp(-2, 2)
    y = degrade(x, Denoising(), "poisson=8")
    result = restore(y, Denoising(), Shrink(), "posterior-mean", "poisson=8", seed=0)
    once = restore(y, Denoising(), Shrink(), PosteriorMeanOnce(views=1), "poisson=8").image
    # 0.6 y + 0.4 x has the variance 0.36 x / 8 at a given x: Poisson noise of 8 / 0.36 counts
    mixed, law = 0.6 * y + 0.4 * once, PoissonNoise(8 / 0.36)
    twice = restore(mixed, Denoising(), Shrink(), PosteriorMeanOnce(views=1), law)
    assert torch.allclose(result.image, twice.image, atol=1e-5)
    assert result.passes == 2 and result.nfe == 6 and result.evaluations == (6,)
    assert torch.allclose(result.misfit, twice.misfit, rtol=1e-4)
    weak = restore(y, Denoising(), Shrink(), noise_std="poisson=100")
    assert weak.passes == 1 and weak.nfe == 3
    drawn = restore(y, Denoising(), Shrink(), "diffpir", "poisson=8", samples=2, steps=2)
    assert drawn.passes == 1


class PosteriorMeanOnce(PosteriorMean):
    stabilised_passes = 1


def test_methods_without_noise_get_the_measurement_as_it_is():
    y = batch().clamp(0, 1)
    for law in ("poisson=20", "correlated=0.05,3"):
        assert torch.equal(restore(y, Denoising(), None, Measurement(), law).image, y)
    blur = make_operator("deblur", gaussian=1.0, boundary="circular")
    counts = restore(y, blur, None, RichardsonLucy(3), "poisson=20").image
    assert torch.equal(counts, restore(y, blur, None, RichardsonLucy(3), 0.1).image)


def test_poisson_noise_is_stabilised():
    x = 0.5 + 0.2 * normal(1, 1, 64, 64).clamp(-2, 2)
    y = torch.poisson(30 * x, generator=torch.Generator().manual_seed(0)) / 30
    result = restore(y, Denoising(), Shrink(), noise_std=PoissonNoise(30))
    assert psnr(result.image, x).item() > psnr(y, x).item() + 0.5
    # stabilised images have another mean than the prior
    assert result.image.mean().item() == pytest.approx(x.mean().item(), abs=0.03)


def test_numpy_images_take_laws():
    y = np.full((64, 64, 3), 128, dtype=np.uint8)
    result = restore(y, Denoising(), Shrink(), noise_std=PoissonNoise(100))
    assert result.image.dtype == np.uint8 and result.image.shape == (64, 64, 3)


@pytest.mark.parametrize(("law", "message"), [
    (box(0.1), "with holes"),
    (IndependentNoise(torch.ones(5, 5)), "does not fit"),
])
def test_errors(law, message):
    keep = torch.ones(1, 1, 12, 20)
    keep[..., 3:5, 3:5] = 0
    with pytest.raises(SettingError, match=message):
        restore(batch(), make_operator("inpaint", keep=keep), Shrink(), noise_std=law)


def test_the_reach_is_the_largest_correlated_distance():
    c = torch.zeros(1, 1, 15, 15)
    c[..., 7, 4:11] = c[..., 4:11, 7] = 0.5
    c[..., 7, 7] = 1
    assert CameraNoise(c, 1.0, 0.5, 1.0, (0.5,), (1.0,), 1.0).reach() == 3


@pytest.mark.slow
def test_the_command_removes_correlated_noise_and_says_so(tmp_path):
    # after noise reduction: a box of 3 x 3 pixels leaves noise that counts as white
    law = CorrelatedNoise.from_kernel(gaussian_kernel(2.0), 0.03)
    y = (photo() + law.colour(normal(1, 3, 256, 256))).clamp(0, 1)
    write_image(tmp_path / "a.png", y)
    told = succeed("denoise", tmp_path / "a.png").stdout
    record = sidecar(tmp_path / "a.genprior.png")
    assert record["noise_found"].startswith("correlated over 3 px")
    assert psnr(read_image(tmp_path / "a.genprior.png").pixels, photo()) > psnr(y, photo()) + 2
    assert f"noise {record['noise']:.4g} (estimated), {record['noise_found']}" in told
