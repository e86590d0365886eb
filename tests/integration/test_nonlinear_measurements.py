"""Over-exposure with a prior that ships."""

import torch
from skimage import data

import genprior


def psnr(x: torch.Tensor, reference: torch.Tensor) -> float:
    """Returns the PSNR of an image, clipped to [0, 1], in dB."""
    return -10 * (x.clamp(0, 1) - reference).square().mean().log10().item()


def test_the_default_restores_an_over_exposed_photo() -> None:
    crop = data.chelsea()[98:130, 128:160]
    x = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None] / 255
    op = genprior.make_operator("hdr", factor=2, pivot=0.5)
    y = genprior.degrade(x, op, 0.025)
    result = genprior.restore(y, op, "ddpm", noise_std=0.025, steps=8)
    assert result.solver == "hqs"
    assert psnr(result.image, x) > psnr(op.pinv(y), x)
