import deepinv
import pytest
import torch

from genprior.errors import CheckpointError
from genprior.scores import Perceptual


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


def test_lpips_takes_images_to_where_its_network_is(monkeypatch):
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
