"""Files of IRCNN: 25 state dictionaries, compared with the network of KAIR."""

import json
import math
from pathlib import Path

import pytest
import torch
from shell import save_photo, sidecar, succeed
from torch import Tensor, nn

from genprior import load_prior
from genprior.core.errors import CheckpointError
from genprior.priors.external.single_level import denoise_any


class TheirIRCNN(nn.Module):
    """The network of KAIR, models/network_dncnn.py."""

    def __init__(self, channels: int, width: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, dilation in enumerate((1, 2, 3, 4, 3, 2, 1)):
            a, b = (channels if k == 0 else width), (channels if k == 6 else width)
            layers += [nn.Conv2d(a, b, 3, 1, padding=dilation, dilation=dilation), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x - self.model(x)


def write(path: Path, channels: int) -> list[TheirIRCNN]:
    torch.manual_seed(0)
    networks = [TheirIRCNN(channels) for _ in range(25)]
    torch.save({str(k): network.state_dict() for k, network in enumerate(networks)}, path)
    return networks


@pytest.mark.parametrize("channels", [1, 3])
def test_each_level_has_its_network(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "ircnn.pth"
    networks, prior = write(path, channels), load_prior(path)
    x = torch.rand(3, channels, 11, 8)
    for sigma in (1e-4, 2 / 255, 15 / 255, 25 / 255, 50 / 255):
        k = max(math.ceil(round(sigma * 255 / 2, 6)), 1)
        with torch.no_grad():
            expected = networks[k - 1](x)
        torch.testing.assert_close(prior.denoise(x, sigma), expected, atol=1e-6, rtol=0)
    sigmas = torch.tensor([0.01, 0.1, 0.4])
    each = [prior.denoise(x[i : i + 1], sigmas[i].item()) for i in range(3)]
    torch.testing.assert_close(prior.denoise(x, sigmas), torch.cat(each))
    level = torch.full((3, 1, 1, 1), 0.4)
    with torch.no_grad():
        scaled = denoise_any(networks[24].model, x, level, 50 / 255)
    torch.testing.assert_close(prior.denoise(x, 0.4), scaled, atol=1e-6, rtol=0)


def test_a_restoration_from_the_shell(tmp_path: Path) -> None:
    path, photo = tmp_path / "ircnn_color.pth", save_photo(tmp_path / "a.png", size=(12, 9))
    write(path, 3)
    succeed("deblur", photo, "--prior", path, "--gaussian", 1, "--degrade", "--steps", 2, "-q")
    assert str(path) in json.dumps(sidecar(tmp_path / "a.genprior.png"))
    about = json.loads(succeed("priors", "info", path).stdout)
    assert about["format"] == "ircnn" and about["receptive_radius"] == 16


def test_other_variants_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ircnn.pth"
    write(path, 1)
    found = torch.load(path, weights_only=True)
    del found["7"]
    torch.save(found, path)
    with pytest.raises(CheckpointError, match="14 tensors are missing .levels.7.0.bias"):
        load_prior(path)
    write(path, 2)
    with pytest.raises(CheckpointError, match="is no IRCNN of grey or colour images"):
        load_prior(path)
