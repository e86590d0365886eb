"""Complex images: a prior of grey or colour images takes their two parts."""

import deepinv
import pytest
import torch
from small import Shrink
from torch import Tensor

from genprior import degrade, restore
from genprior.core.errors import SettingError
from genprior.priors.complex_parts import ComplexParts
from genprior.priors.external.callable import External
from genprior.priors.gmm import GMM

SHAPE = (2, 12, 20)


def parts(count: int = 2) -> Tensor:
    return 2 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0)) - 1


class Grey(Shrink):
    """Denoiser of images of one number of channels only."""

    is_inpainter = True

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        return super().denoise(x, sigma)

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        return torch.where(unknown > 0, 0.5, self.denoise(x, sigma))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [0.2, torch.tensor([0.1, 0.4]), torch.tensor([0.3])])
def test_each_part_is_a_grey_image(channels: int, sigma: float | Tensor) -> None:
    x, prior = parts(), ComplexParts(Grey(channels))
    found = prior.denoise(x, sigma)
    for part in (0, 1):
        grey = Shrink().denoise((x[:, [part]] + 1) / 2, sigma / 2)
        torch.testing.assert_close(found[:, [part]], 2 * grey - 1)
    unknown = (x[:, :1] > 0).float()
    masked = prior.denoise_masked(x, sigma, unknown)
    torch.testing.assert_close(masked, torch.where(unknown > 0, 0.0, found))


def mri() -> deepinv.physics.MRI:
    mask = torch.rand(1, 1, *SHAPE[1:], generator=torch.Generator().manual_seed(1)) > 0.4
    return deepinv.physics.MRI(mask=mask.float(), img_size=SHAPE)


@pytest.mark.parametrize("solver, samples", [(None, 1), ("diffpir", 2), ("moment-matched", 2)])
def test_an_mri_is_restored_with_a_prior_of_grey_images(solver: str | None, samples: int) -> None:
    class Both(Shrink):
        """The same law, for images of two channels."""

        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            return 2 * super().denoise((x + 1) / 2, sigma / 2) - 1

    physics, x = mri(), parts() / 2
    y = degrade(x, physics, 0.05)
    options = {"solver": solver, "noise_std": 0.05, "samples": samples}
    result = restore(y, physics, Grey(1), **options)
    expected = restore(y, physics, Both(), **options)
    torch.testing.assert_close(result.image, expected.image, rtol=0, atol=1e-4)
    assert result.image.shape == x.shape and result.prior == "Grey"


def test_an_mri_of_a_photograph_is_restored_with_the_shipped_kind_of_prior(weights) -> None:
    physics, x = mri(), parts(1) / 2
    result = restore(degrade(x, physics, 0.05), physics, weights, noise_std=0.05, steps=2)
    assert result.image.shape == x.shape and result.image.isfinite().all()


def test_a_prior_of_two_channels_or_of_any_is_used_as_it_is() -> None:
    physics, seen = mri(), []

    def network(x: Tensor, sigma: float | Tensor) -> Tensor:
        seen.append(x.shape[1])
        return Shrink().denoise(x, sigma)

    y = physics.A(parts(1))
    for prior in (network, External(network), External(network, channels=1)):
        seen.clear()
        restore(y, physics, prior, noise_std=0.05)
        assert set(seen) == {1 if getattr(prior, "channels", None) else 2}
    law = GMM(torch.ones(1), torch.zeros(1, *SHAPE), torch.eye(480)[None] / 4)
    assert restore(y, physics, law, noise_std=0.05).image.shape == (1, *SHAPE)


def test_a_solver_that_is_no_name_is_named() -> None:
    with pytest.raises(SettingError, match="solver must be a name, or an object such as make_so"):
        restore(parts(1), mri(), Grey(1), solver=type("HQS", (), {}))
