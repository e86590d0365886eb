"""Textures estimated from an image with scattered missing pixels."""

import pytest
import torch
from gaussians import generator
from torch.fft import fft2, ifft2

from genprior.priors.texture import Texture
from genprior.priors.texture_masked import is_scattered, known_pairs, nearest_spectrum

SIZE = 64


def smooth_image(channels: int) -> torch.Tensor:
    """Returns an image whose channels share one white noise field, as in the model."""
    f = torch.fft.fftfreq(SIZE, dtype=torch.float64)
    gain = 1 / (0.003 + f[:, None] ** 2 + f**2)
    w = torch.randn(SIZE, SIZE, generator=generator(0), dtype=torch.float64)
    u = torch.stack([ifft2(fft2(w) * gain ** (1 + 0.2 * c)).real for c in range(channels)])
    return (0.5 + 0.1 * (u - u.mean()) / u.std())[None]


def random_keep(share: float) -> torch.Tensor:
    return (torch.rand(1, 1, SIZE, SIZE, generator=generator(1)) < share).double()


def autocovariance(prior: Texture) -> torch.Tensor:
    t = fft2(prior.texton)
    return ifft2(t[:, None] * t.conj()[None]).real


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_covariances_are_those_of_the_image(channels, share):
    u, keep = smooth_image(channels), random_keep(share)
    r = u[0] - u.mean(dim=(2, 3))[0][:, None, None]
    truth = ifft2(fft2(r)[:, None] * fft2(r).conj()[None]).real / SIZE**2
    estimate = autocovariance(Texture.from_exemplar(torch.where(keep > 0, u, torch.nan), keep))
    for i, j in [(0, 1), (1, 0), (1, 1), (0, 3), (2, 0)]:
        error = (estimate - truth)[..., i, j].norm() / truth[..., i, j].norm()
        assert error < 0.1  # masked and not corrected: 1 - share


def test_variances_are_those_of_the_known_pixels():
    u, keep = smooth_image(3), random_keep(0.5)
    known = u[0][:, keep[0, 0] > 0]
    prior = Texture.from_exemplar(u, keep)
    variance = prior.texton.square().sum(dim=(1, 2))
    assert torch.allclose(variance, known.var(dim=1, correction=0))


def test_a_compact_hole_is_not_scattered():
    keep = torch.ones(SIZE, SIZE)
    keep[10:50, 10:60] = 0
    assert not is_scattered(known_pairs(keep))
    assert is_scattered(known_pairs(random_keep(0.8)[0, 0]))


def test_pairs_are_counted():
    known = random_keep(0.3)[0, 0]
    pairs = known_pairs(known)
    for i, j in [(0, 0), (0, 1), (5, 60)]:
        expected = (known * known.roll((i, j), dims=(0, 1))).sum() / known.sum()
        assert pairs[i, j].item() == pytest.approx(expected.item())


def test_the_nearest_spectrum_is_a_projection():
    S = torch.randn(6, 7, generator=generator(2), dtype=torch.float64)
    total = torch.tensor(5.0, dtype=torch.float64)
    nearest = nearest_spectrum(S, total)
    assert (nearest >= 0).all()
    assert nearest.sum().item() == pytest.approx(5.0)
    # the direction to every other such spectrum makes an obtuse angle with the way to S
    for k in range(42):
        corner = torch.zeros(42, dtype=torch.float64)
        corner[k] = 5.0
        assert ((S - nearest).flatten() * (corner - nearest.flatten())).sum() <= 1e-12


def test_a_grid_of_pixels_is_refused():
    keep = torch.zeros(1, 1, SIZE, SIZE)
    keep[..., ::2, ::2] = 1
    with pytest.raises(ValueError, match="have a known neighbour"):
        Texture.from_exemplar(smooth_image(1), keep)


def test_a_constant_image_has_no_texture():
    prior = Texture.from_exemplar(torch.full((1, 1, SIZE, SIZE), 0.3), random_keep(0.5).float())
    assert prior.texton.abs().max() < 1e-6
