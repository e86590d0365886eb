"""Denoisers in the files of KAIR, compared with spandrel's networks and with scipy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from shell import save_photo, sidecar, succeed
from torch import nn

from genprior import load_prior
from genprior.core.errors import CheckpointError

SPANDREL_MISSING = 'spandrel is missing: pip install "genprior[test]"'


def chain(inputs: int, outputs: int, bias: bool = True, depth: int = 3) -> nn.Sequential:
    """A chain of convolutions in KAIR's numbering, untrained."""
    torch.manual_seed(0)
    widths = [inputs, *[5] * (depth - 1), outputs]
    layers = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(a, b, 3, padding=1, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def save(path: Path, layers: nn.Module, prefix: str = "model.") -> Path:
    torch.save({f"{prefix}{key}": value for key, value in layers.state_dict().items()}, path)
    return path


def by_scipy(layers: nn.Sequential, x: np.ndarray) -> np.ndarray:
    """Evaluates a chain of convolutions on an image (C, H, W)."""
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            x = np.maximum(x, 0)
            continue
        weight = layer.weight.detach().double().numpy()
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().numpy()
        x = np.stack([
            bias[o] + sum(correlate(x[i], weight[o, i], mode="constant") for i in range(len(x)))
            for o in range(len(weight))
        ])
    return x


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 1, 7, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
def test_a_blind_network_ignores_the_noise_level(
    tmp_path: Path, x: torch.Tensor, bias: bool
) -> None:
    layers = chain(1, 1, bias)
    prior = load_prior(save(tmp_path / "dncnn_gray_blind.pth", layers))
    expected = x[1, 0].numpy() - by_scipy(layers, x[1].double().numpy())[0]
    for sigma in (0.01, 0.3):
        np.testing.assert_allclose(prior.denoise(x, sigma)[1, 0], expected, atol=1e-6)
    assert prior.receptive_radius == 3


def test_a_network_for_one_level_serves_all(tmp_path: Path, x: torch.Tensor) -> None:
    layers = chain(1, 1, bias=False)  # F(r x) = r F(x): the scaling must have no effect
    prior = load_prior(save(tmp_path / "dncnn_25.pth", layers, "module.model."))
    s = 25 / 255
    D = (x.double() - layers.double()(x.double())).float()
    torch.testing.assert_close(prior.denoise(x, s), D, atol=1e-6, rtol=0)
    torch.testing.assert_close(prior.denoise(x, torch.tensor([s, s])), D, atol=1e-6, rtol=0)
    mid = x.double() - 0.5
    scaled = 0.5 + (0.5 * mid - layers(0.5 + 0.5 * mid)) / 0.5
    torch.testing.assert_close(prior.denoise(x, 2 * s), scaled.float(), atol=1e-6, rtol=0)
    assert (prior.denoise(x, 1e-6) - x).abs().max() < 1e-5
    near, at = (prior.denoise(x, level) for level in (s * (1 - 1e-4), s))
    torch.testing.assert_close(near, at, atol=1e-3, rtol=0)


def test_settings_beside_the_file_replace_its_name(tmp_path: Path, x: torch.Tensor) -> None:
    path = save(tmp_path / "mine.pth", chain(1, 1))
    assert load_prior(path).noise_level is None
    settings = tmp_path / "mine.pth.genprior.json"
    settings.write_text('{"noise_level": 0.2}')
    assert load_prior(path).noise_level == 0.2
    settings.write_text('{"noise": 0.2}')
    with pytest.raises(CheckpointError, match="unknown field .noise.: it may set noise_level"):
        load_prior(path)


def test_a_noise_map_is_a_further_image(tmp_path: Path, x: torch.Tensor) -> None:
    layers = chain(2, 1)
    prior = load_prior(save(tmp_path / "fdncnn_gray.pth", layers))
    levels = torch.tensor([0.1, 0.2])
    inputs = np.stack((x[1, 0].numpy(), np.full((7, 10), 0.2))).astype(float)
    expected = by_scipy(layers, inputs)
    np.testing.assert_allclose(prior.denoise(x, levels)[1], expected, atol=1e-6)


def test_ffdnet_takes_sub_images(tmp_path: Path) -> None:
    layers = chain(13, 12)
    prior = load_prior(save(tmp_path / "ffdnet_color.pth", layers))
    x = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    image = x[0].double().numpy()
    parts = [image[c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)]
    out = by_scipy(layers, np.stack([*parts, np.full((3, 4), 0.1)]))
    expected = np.zeros_like(image)
    for k, (c, i, j) in enumerate((c, i, j) for c in range(3) for i in (0, 1) for j in (0, 1)):
        expected[c, i::2, j::2] = out[k]
    np.testing.assert_allclose(prior.denoise(x, 0.1)[0], expected, atol=1e-6)
    assert prior.denoise(x[..., :5, :7], 0.1).shape == (1, 3, 5, 7)
    grey = prior.denoise(x[:, :1], 0.1)
    expanded = prior.denoise(x[:, :1].expand(-1, 3, -1, -1), 0.1).mean(dim=1, keepdim=True)
    torch.testing.assert_close(grey, expanded)


def test_batch_normalisation_is_kept(tmp_path: Path, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1),
        nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1),
    )
    layers(torch.rand(4, 1, 8, 8))  # moves the running statistics
    prior = load_prior(save(tmp_path / "bn.pth", layers))
    torch.testing.assert_close(prior.denoise(x, 0.1), x - layers.eval()(x))


@pytest.mark.parametrize(("name", "inputs", "outputs"), [
    ("dncnn_25", 1, 1), ("fdncnn_color", 4, 3), ("ffdnet_gray", 5, 4),
])
def test_restorations_from_the_shell(
    tmp_path: Path, name: str, inputs: int, outputs: int
) -> None:
    path = save(tmp_path / f"{name}.pth", chain(inputs, outputs))
    photo = save_photo(tmp_path / "a.png", channels=3 if outputs == 3 else 1, size=(12, 9))
    succeed("deblur", photo, "--prior", path, "--gaussian", 1, "--degrade", "--steps", 2, "-q")
    assert str(path) in json.dumps(sidecar(tmp_path / "a.genprior.png"))


def test_spandrel_reads_the_same_dncnn(tmp_path: Path, x: torch.Tensor) -> None:
    spandrel = pytest.importorskip("spandrel", reason=SPANDREL_MISSING)
    path = save(tmp_path / "dncnn_25.pth", chain(1, 1, depth=8))
    theirs = spandrel.ModelLoader().load_from_file(path).model.eval()
    torch.testing.assert_close(load_prior(path).denoise(x, 25 / 255), theirs(x))


def test_drunet_has_spandrels_result(tmp_path: Path) -> None:
    spandrel = pytest.importorskip("spandrel", reason=SPANDREL_MISSING)
    from spandrel.architectures.DRUNet import DRUNet

    torch.manual_seed(0)
    network = DRUNet(in_nc=4, out_nc=3, nc=[4, 6, 8, 10], nb=2)
    path = tmp_path / "drunet_color.pth"
    torch.save(network.state_dict(), path)
    theirs = spandrel.ModelLoader().load_from_file(path).model.eval()
    prior = load_prior(path)
    x = torch.rand(2, 3, 16, 24)
    for sigma in (0.05, torch.tensor([0.1, 0.02])):
        level = torch.as_tensor(sigma).reshape(-1, 1, 1, 1).expand(2, 1, 16, 24)
        expected = theirs(torch.cat((x, level), dim=1))
        torch.testing.assert_close(prior.denoise(x, sigma), expected, atol=1e-5, rtol=0)
    assert prior.denoise(x[..., :11, :19], 0.1).shape == (2, 3, 11, 19)
    photo = save_photo(tmp_path / "a.png", size=(12, 9))
    succeed("deblur", photo, "--prior", path, "--gaussian", 1, "--degrade", "--steps", 2, "-q")
    assert str(path) in json.dumps(sidecar(tmp_path / "a.genprior.png"))


@pytest.mark.parametrize(("layers", "message"), [
    (chain(2, 2), "from 2 to 2 channels is no DnCNN, FDnCNN or FFDNet"),
    (nn.Sequential(nn.Conv2d(1, 1, 5)), "layer 0 is neither a 3 x 3 convolution nor a norm"),
])
def test_other_chains_are_refused(tmp_path: Path, layers: nn.Module, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_prior(save(tmp_path / "other.pth", layers))


class BFCNN(nn.Module):
    """The network of Kadkhodaie and Simoncelli's universal_inverse_problem, in evaluation."""

    def __init__(self, channels: int, width: int = 6, layers: int = 4) -> None:
        super().__init__()
        widths = [channels, *[width] * (layers - 1), channels]
        self.conv_layers = nn.ModuleList([
            nn.Conv2d(a, b, 3, padding=1, bias=False)
            for a, b in zip(widths, widths[1:], strict=False)
        ])
        self.running_sd = nn.ParameterList([
            nn.Parameter(torch.rand(1, width, 1, 1) + 0.5) for _ in range(layers - 2)
        ])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_layers[0](x).relu()
        for layer, sd in zip(list(self.conv_layers)[1:-1], self.running_sd, strict=True):
            x = (layer(x) / sd).relu()
        return self.conv_layers[-1](x)


class BFDnCNN(nn.Module):
    """The network of bias_free_denoising, with the normalisation that deepinv has from there."""

    def __init__(self, channels: int, width: int = 6, hidden: int = 2) -> None:
        from deepinv.models.unet import BFBatchNorm2d

        super().__init__()
        self.first_layer = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.hidden_layer_list = nn.ModuleList([
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(hidden)
        ])
        self.bn_layer_list = nn.ModuleList([BFBatchNorm2d(width) for _ in range(hidden)])
        self.last_layer = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        for norm in self.bn_layer_list:
            norm.weight.data.uniform_(0.5, 1.5)
            norm.running_var.uniform_(0.5, 1.5)
            norm.running_mean.uniform_(0.5, 1.5)  # is not used

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first_layer(x).relu()
        for layer, norm in zip(self.hidden_layer_list, self.bn_layer_list, strict=True):
            h = norm(layer(h)).relu()
        return self.last_layer(h)


@pytest.mark.parametrize(("kind", "network"), [("bf-cnn", BFCNN), ("bf-dncnn", BFDnCNN)])
@pytest.mark.parametrize("channels", [1, 3])
def test_bias_free_networks_are_blind_and_homogeneous(
    tmp_path: Path, kind: str, network: type, channels: int
) -> None:
    torch.manual_seed(0)
    theirs, path = network(channels).eval(), tmp_path / "model.pt"
    torch.save(theirs.state_dict(), path)
    prior, x = load_prior(path), torch.rand(2, channels, 11, 8)
    with torch.no_grad():
        expected = x - theirs(x)
    for sigma in (0.01, 0.7, torch.tensor([0.1, 0.2])):
        torch.testing.assert_close(prior.denoise(x, sigma), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(prior.denoise(0.3 * x, 0.1), 0.3 * expected, atol=1e-5, rtol=0)
    about = json.loads(succeed("priors", "info", path).stdout)
    assert about["format"] == kind and about["noise_levels"] == "blind" and about["bias_free"]
    photo = save_photo(tmp_path / "a.png", channels=channels, size=(12, 9))
    succeed("deblur", photo, "--prior", path, "--gaussian", 1, "--degrade", "--steps", 2, "-q")
    assert str(path) in json.dumps(sidecar(tmp_path / "a.genprior.png"))


def test_networks_with_biases_are_no_bias_free_ones(tmp_path: Path) -> None:
    path, state = tmp_path / "model.pt", BFDnCNN(1).state_dict()
    torch.save(state | {"first_layer.bias": torch.zeros(6)}, path)
    with pytest.raises(CheckpointError, match="convolutions .it also has first_layer.bias"):
        load_prior(path)
    torch.save(BFCNN(1).state_dict() | {"running_sd.2": torch.ones(1, 6, 1, 1)}, path)
    with pytest.raises(CheckpointError, match="its tensors are not those of 4 layers"):
        load_prior(path)
