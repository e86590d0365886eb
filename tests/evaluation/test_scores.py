import deepinv
import pytest
import torch

from genprior.core.errors import CheckpointError
from genprior.evaluation.scores import Perceptual, score
from genprior.inverse.base import Restoration


def test_lpips_without_a_connection_says_what_to_do(monkeypatch):
    def offline(**_):
        raise OSError("no route to host")

    monkeypatch.setattr(deepinv.loss.metric, "LPIPS", offline)
    remedies = r"no route to host.*torchvision's alexnet-\S+\.pth into .*leave --lpips out"
    with pytest.raises(CheckpointError, match=remedies):
        Perceptual(torch.device("cpu"))


def test_lpips_takes_grey_images_as_colour(monkeypatch):
    class Distance:
        def __init__(self, device):
            pass

        def __call__(self, x, truth):
            assert x.shape[1] == truth.shape[1] == 3
            return (x - truth).abs().mean((1, 2, 3))

    monkeypatch.setattr(deepinv.loss.metric, "LPIPS", Distance)
    value = Perceptual(torch.device("cpu"))(torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 8))
    assert value.tolist() == [1, 1]


def test_small_images_have_no_lpips_and_values_beyond_the_range_are_clipped():
    seen = []

    def distance(x, truth):
        seen.append((x.max().item(), truth.max().item()))
        return torch.zeros(len(x))

    def scored(side):
        x = torch.full((1, 3, side, side), 1.5)
        found = Restoration(
            image=x, samples=None, mean=None, std=None, misfit=torch.ones(1), solver="none",
            prior="none", nfe=0, products=0, seconds=0.0, noise_std=0.0,
                seed=0,
        )
        return score(found, x + 0.1, distance)[0]

    assert "lpips" not in scored(28) and scored(32)["lpips"] == 0
    assert seen == [(1, 1)] and scored(28)["psnr"] is None  # equal, once they are clipped


def test_lpips_moves_images_to_the_device_of_its_network(monkeypatch):
    seen = []

    class Distance:
        def __init__(self, device):
            pass

        def __call__(self, x, truth):
            seen.extend((x.device.type, truth.device.type))
            return x.new_zeros(len(x))

    monkeypatch.setattr(deepinv.loss.metric, "LPIPS", Distance)
    Perceptual(torch.device("meta"))(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    assert seen == ["meta", "meta"]


def test_wide_holes_have_scores_of_their_own():
    truth = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    hole = torch.zeros(2, 1, 40, 40, dtype=torch.bool)
    hole[0, :, 12:28, 12:28] = True
    hole[1, :, :, 5:11] = True  # thin
    x = torch.where(hole, truth.mean(), truth)
    found = Restoration(
        image=x, samples=None, mean=None, std=None, misfit=torch.ones(2), solver="none",
        prior="none", nfe=0, seconds=0.0, noise_std=0.0, seed=0,
    )
    wide, thin = score(found, truth, hole=hole)
    error = (x - truth)[0, 0][12:28, 12:28]
    assert wide["hole_psnr"] == pytest.approx(-10 * error.square().mean().log10().item(), abs=1e-4)
    assert wide["gradient"] == 0 and wide["patch_distance"] > 0.01 and wide["jump"] > 0
    assert thin["hole_psnr"] is None and thin["psnr"] > 0
    assert "jump" not in score(found, truth, hole=hole[1:])[0]
    assert "jump" not in score(found, truth)[0]
