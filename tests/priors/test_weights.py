"""Restoration quality of the shipped weights, each with its default solver."""

import pytest
import torch
from shell import photo
from torch import Tensor

from genprior import load_prior, restore, sample
from genprior.api.estimated_priors import estimate_prior
from genprior.api.restoration import degrade
from genprior.core.metrics import psnr
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep

KEEP = random_keep((1, 1, 64, 64), 0.5)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.from_numpy(photo(size=(64, 64)) / 255.0).float().permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def baseline(image) -> float:
    """Returns the PSNR with a texture estimated from the known pixels."""
    y = Inpainting(KEEP).A(image)
    prior = estimate_prior("texture", y, KEEP)
    return psnr(restore(y, Inpainting(KEEP), prior).image.clamp(0, 1), image).item()


@pytest.mark.parametrize(
    "name, gain", [("ddpm", 3), ("glow", 2), ("vae", 2), ("hvae", 2), ("gan", 0)]
)
def test_photos_are_filled_better_than_by_a_texture(image, baseline, name, gain):
    found = restore(Inpainting(KEEP).A(image), Inpainting(KEEP), name).image.clamp(0, 1)
    assert psnr(found, image).item() > baseline + gain


def test_the_flow_of_photos_is_inverted_in_single_precision(image):
    glow = load_prior("glow")
    again = glow.decode(glow.encode(image), image.shape)
    torch.testing.assert_close(again, image, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["ddpm", "vae", "gan", "glow"])
def test_digits_are_filled_better_than_by_grey(family):
    x = sample("glow:digits", 2, (28, 28), temperature=0.7, seed=3).clamp(0, 1)
    op = Inpainting(random_keep((1, 1, 28, 28), 0.5))
    y = degrade(x, op)
    found = restore(y, op, f"{family}:digits").image.clamp(0, 1)
    grey = torch.where(op.mask > 0, x, x.mean())
    assert (psnr(found, x) > psnr(grey, x) + 3).all()
