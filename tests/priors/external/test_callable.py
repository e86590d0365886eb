"""Denoisers of deepinv and of users as priors."""

import functools

import deepinv
import pytest
import torch
from small import HOLE, Shrink, batch
from torch import Tensor

from genprior import restore
from genprior.operators.inpainting import Inpainting
from genprior.priors.external.callable import External


class Turned(Shrink):
    symmetries = (0,)


class Theirs(deepinv.models.Denoiser):
    def forward(self, x: Tensor, sigma: float | Tensor, **_: object) -> Tensor:
        assert not self.training
        return Shrink().denoise(x, sigma)


@pytest.mark.parametrize("solver", ["hqs", "moment-matched", "ddrm"])
@pytest.mark.parametrize("prior", [Theirs(), External(Shrink().denoise)])
def test_any_denoiser_is_a_prior(prior: object, solver: str) -> None:
    op = Inpainting(~HOLE)
    options = {"solver": solver, "noise_std": [0.02, 0.1]}
    result = restore(op.A(batch()), op, prior, **options)
    expected = restore(op.A(batch()), op, Turned(), **options)
    torch.testing.assert_close(result.image, expected.image)
    assert result.prior == type(prior).__name__


def test_a_network_of_deepinv_takes_any_size_and_is_not_modified() -> None:
    torch.manual_seed(0)
    network = deepinv.models.DRUNet(nc=[8, 8, 8, 8], nb=1, pretrained=None).train()
    op = Inpainting(~HOLE[..., :11, :19])
    x = batch()[..., :11, :19]
    result = restore(op.A(x), op, network, "mmps", noise_std=0.1, steps=3, samples=2)
    assert result.samples.shape == (2, 2, *x.shape[1:]) and result.prior == "DRUNet"
    assert network.training and all(p.grad is None for p in network.parameters())
    assert not torch.equal(result.samples[:, 0], result.samples[:, 1])


def test_invalid_denoisers_are_refused() -> None:
    with pytest.raises(TypeError, match="must be callable with images and a noise level, got 3"):
        External(3)
    smaller = External(lambda x, sigma: x[..., 1:])
    op = Inpainting(~HOLE)
    message = r"must keep the shape of the images, but .* into \(1, 3, 12, 19\)"
    with pytest.raises(ValueError, match=message):
        restore(op.A(batch()), op, smaller, "hqs")
    for other in (lambda x: x, int, torch.nn.Conv2d(3, 3, 1), Step()):
        message = "wrap a function .* genprior.priors.external.callable.External"
        with pytest.raises(ValueError, match=message):
            restore(op.A(batch()), op, other)


class Step(torch.nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x


class Network(torch.nn.Module):
    def forward(self, x: Tensor, noise_level: float | Tensor) -> Tensor:
        return Shrink().denoise(x, noise_level)


@pytest.mark.parametrize(
    "given", [lambda x, sigma: Shrink().denoise(x, sigma), Shrink().denoise, Network(),
              functools.partial(Shrink.denoise, Shrink())],
)
def test_a_function_of_images_and_a_level_is_a_prior(given: object) -> None:
    op = Inpainting(~HOLE)
    result = restore(op.A(batch()), op, given, noise_std=0.1)
    assert torch.equal(result.image, restore(op.A(batch()), op, Turned(), noise_std=0.1).image)
